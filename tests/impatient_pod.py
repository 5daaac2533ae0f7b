"""`vault-ml`, with the faults of tests/faults/planted_pod.py, that gives a worker which hangs 1 s more.

python -m tests.impatient_pod run
"""

from consumer import run
from tests.faults.planted_pod import plant

if __name__ in ("__main__", "__mp_main__"):
    plant()
    run.BACKSTOP_SECONDS = 1.0  # type: ignore[attr-defined]  # of consumer/parts.py, under the name it has there

if __name__ == "__main__":
    from consumer.cli import main

    main()
