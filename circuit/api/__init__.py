"""The server: GraphQL, WebSocket, SSE and health, over the engine's commands and queries and the streams."""
