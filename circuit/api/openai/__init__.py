"""The endpoint that chat clients know: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, over the engine."""
