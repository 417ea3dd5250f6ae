"""The tools that come with Circuit: files, a shell, fetching over HTTP, and tools of HTTP APIs."""
