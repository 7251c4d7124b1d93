"""Classify one image.

python predict_one.py BUNDLE IMAGE
"""

import sys

import edgecls


def main(bundle: str, image: str) -> None:
    predictor = edgecls.load(bundle)
    prediction = predictor.predict(image)

    print(f"{image} on {predictor.backend} ({predictor.precision})")
    for ranked in prediction.topk:
        print(f"  {ranked.score:7.2%}  {ranked.label}")
    print("  " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in prediction.speed_ms.items()))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
