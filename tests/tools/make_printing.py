"""Write tests/golden/printing.json: what PyTorch prints. Needs torch, which the tests do not.

python tests/tools/make_printing.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.frontend.printing_cases import texts  # noqa: E402

(ROOT / "tests" / "golden" / "printing.json").write_text(json.dumps(list(texts(torch)), indent=0) + "\n")
