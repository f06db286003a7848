"""Runs the test modules of this folder and writes their counts as JSON:  python run.py COUNTS.json [NAME…]"""

import json
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

counts_path, names = Path(sys.argv[1]), sys.argv[2:]
loader = unittest.TestLoader()
suite = loader.loadTestsFromNames(names) if names else loader.discover(str(HERE), pattern="test_*.py")
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
# A failed subtest stands in the lists once for each; the test itself counts once.
failed = len({str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors})
skipped = len(result.skipped)
counts_path.write_text(
    json.dumps({"passed": max(result.testsRun - failed - skipped, 0), "failed": failed, "skipped": skipped})
)
sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)
