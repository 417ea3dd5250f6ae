"""Models inside: vLLM's engine in a process of its own for each model, and the provider that speaks to it.

`spec` says what is to be loaded, `model` keeps it loaded, `process` is one start of its process and `child` what runs
there; `engine` is the one file that knows vLLM.
"""
