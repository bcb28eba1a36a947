"""Programs in processes of their own, in which JAX has several CPU devices."""

import subprocess
import sys

from jaxlbfgsb.argmin import OLDER


def environment(devices: int, **more: str) -> dict[str, str]:
    """That of such a process, which compiles as fast as XLA can: a flag that it does not know would end it."""
    lean = " --xla_cpu_use_fusion_emitters=false" * bool(OLDER)
    return more | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}{lean}", "JAX_PLATFORMS": "cpu"}


def printed(script: str, devices: int, **more: str) -> str:
    """What the script prints; one that waits for ever is ended."""
    command, env = [sys.executable, "-c", script], environment(devices, **more)
    done = subprocess.run(command, env=env, timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
