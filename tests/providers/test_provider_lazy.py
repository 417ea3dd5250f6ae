"""What a run without a remote provider does not pay for."""

from __future__ import annotations

import subprocess
import sys


def test_scripted_answers_need_no_http_library() -> None:
    code = (
        "import sys\n"
        "from circuit.actions.agent import AgentAction\n"
        "from circuit.providers.registry import ProviderRegistry\n"
        "ProviderRegistry({}).provider({'type': 'scripted', 'options': {}})\n"
        "print([name for name in ('httpx', 'httpcore', 'ssl') if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "httpx" not in shown.stdout
