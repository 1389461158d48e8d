"""The `kiln` command; `python -m kiln` is the same.

kiln demo       train digit classifiers eagerly and compiled, and compare
kiln classify   classify the held-out digits with saved weights
kiln env        what kiln sees of this machine
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import kiln


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kiln", description="A graph-capturing JIT compiler over an eager frontend.")
    parser.add_argument("--version", action="version", version=f"kiln {kiln.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train on 1,348 real handwritten digits, eagerly and compiled, and compare")
    demo.add_argument("--epochs", type=int, help="passes over the training rows (default: 30 and, of the CNN, 20)")
    demo.add_argument("--seeds", type=int, default=3, help="number of runs, seeds 0, 1, ... (default 3)")
    demo.add_argument("--out", default="kiln-demo", help="folder for the weights and the report (default kiln-demo)")
    demo.add_argument("--device", default="cpu", help="where to train: cpu, cuda, cuda:1 (default cpu)")
    classify = commands.add_parser("classify", help="classify the held-out digits with weights that the demo saved")
    classify.add_argument("weights", help="a file written by `kiln demo`")
    classify.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1 (default cpu)")
    commands.add_parser("env", help="print versions, CPU features, GPUs, threads and the cache folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors of kiln's own tree print as one message."""
    args = _parser().parse_args(argv)
    if args.command == "env":
        from kiln.runtime.info import environment

        for key, value in environment().items():
            print(f"{key:12} {value}")
        return 0
    from kiln import demo
    from kiln.errors import KilnError

    try:
        if args.command == "demo":
            return demo.run(epochs=args.epochs, seeds=args.seeds, out=args.out, device=args.device)
        return demo.classify(args.weights, args.device)
    except (KilnError, OSError) as error:
        print(f"kiln: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
