"""Asks a server by REST, with the requests library, as TensorFlow Serving's resnet example does.

python rest_example.py http://localhost:8501 photo.jpg
"""

import base64
import json
import pathlib
import sys

import requests

TURNS = 5


def main(server, image):
    with requests.Session() as session:
        status = session.get(f"{server}/v1/models/half").json()["model_version_status"]
        metadata = session.get(f"{server}/v1/models/half/metadata").json()["metadata"]

        encoded = base64.b64encode(pathlib.Path(image).read_bytes()).decode("utf-8")
        body = json.dumps({"signature_name": "search_image", "instances": [{"b64": encoded}]})
        answers = []
        for _ in range(TURNS):
            response = session.post(f"{server}/v1/models/tiny:predict", data=body)
            response.raise_for_status()
            (found,) = response.json()["predictions"]
            answers.append(list(zip(found["product_id"], found["score"], strict=True)))

        absent = session.post(f"{server}/v1/models/gone:predict", json={"instances": [1.0]})
        result = {
            "versions": {one["version"]: one["state"] for one in status},
            "signatures": sorted(metadata["signature_def"]["signature_def"]),
            "hits": answers,
            "absent": [absent.status_code, absent.json()],
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
