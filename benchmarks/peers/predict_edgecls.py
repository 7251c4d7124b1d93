"""``predict`` of edgecls: BUNDLE BACKEND."""

from __future__ import annotations

import sys

from answering import answer

import edgecls

bundle, backend = sys.argv[1:]
predictor = edgecls.load(bundle, backend=backend, threads=1)
answer(lambda path: predictor.predict(path).top1.index, version=edgecls.__version__)
