"""`python -m benchmarks` runs all benchmarks and writes the tables and pictures of docs/ from the results.

`--only NAME` runs one, and may be repeated; `--quick` runs tiny sizes, prints the tables and keeps nothing.
"""

import argparse
import os
import subprocess
import sys

from .harness import ROOT

NAMES = [
    *("single", "overhead", "compile", "large", "batched", "host", "reliability", "optax_loop"),
    *("derivative", "processes", "gpu"),
]
ENVIRONMENT = {
    "JAX_ENABLE_X64": "1",
    "OPENBLAS_NUM_THREADS": "1",  # on a busy machine more of them wait for each other: SciPy is 100 times slower
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    "PYTHONWARNINGS": "ignore:JAXopt:DeprecationWarning",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing kept")
    options, failed = parser.parse_args(), []
    for name in options.only or NAMES:
        platform = {} if name == "gpu" else {"JAX_PLATFORMS": "cpu"}
        print(f"\n{name}", flush=True)
        program = f"from benchmarks.report import run; run({name!r}, {options.quick})"
        env = os.environ | ENVIRONMENT | platform
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, check=False)
        if done.returncode and (options.only or name != "gpu"):  # which not every machine can run
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
