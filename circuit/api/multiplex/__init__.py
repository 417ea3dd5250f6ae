"""`/stream`: many executions, cases and workflows over one WebSocket."""
