"""Classify every file of a folder, as lines of CSV; a file that is no image is reported.

python predict_folder.py BUNDLE FOLDER > answers.csv
"""

import csv
import sys
from pathlib import Path

import edgecls


def main(bundle: str, folder: str) -> int:
    predictor = edgecls.load(bundle)
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    answers = csv.writer(sys.stdout)
    answers.writerow(["file", "index", "label", "score"])
    failed = 0
    # The next images are decoded while one runs; nothing is kept.
    for file, found in zip(files, predictor.predict_stream(files, topk=1), strict=True):
        if isinstance(found, Exception):
            print(found, file=sys.stderr)
            failed += 1
        else:
            answers.writerow([file, found.top1.index, found.top1.label, f"{found.top1.score:.4f}"])
    return 4 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
