"""The encoder of a run as a STAC item: what goes in, what comes out, where its weights are."""

import json
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sass.stac import OPEN, SCHEMAS, VERSION, file_properties


def encoder_header(encoder: Path) -> tuple[dict[str, Any], int]:
    """Return what an encoder's file says beside the weights, and how many weights there are."""
    with safe_open(encoder, framework="numpy") as file:
        weights = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        return json.loads(file.metadata()["sass"]), weights


def encoder_item(
    path: Path, about: dict[str, Any], weights: int, box: list[float] | None, times: list[str] | None
) -> dict[str, Any]:
    """Return the encoder as an item with the extension for machine learning models.

    Parameters
    ----------
    path
        Of the encoder's file.
    about, weights
        What `encoder_header` returns.
    box, times
        West, south, east and north in degrees, and the first and the last time, of the scenes that it was
        trained on; None where they are not known.
    """
    bands = [band["name"] for band in about["statistics"]["bands"]]
    start, end = times or OPEN
    place: dict[str, Any] = {"geometry": None}
    if box:
        west, south, east, north = box
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        place = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": box}
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [
            f"{SCHEMAS}/mlm/v1.4.0/schema.json",
            f"{SCHEMAS}/file/v2.1.0/schema.json",
            f"{SCHEMAS}/raster/v1.1.0/schema.json",
        ],
        "id": "encoder",
        **place,
        "properties": {
            "title": "The encoder that the features of this archive were made by",
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            "mlm:name": "SASS encoder",
            "mlm:architecture": about["model"]["encoder"],
            "mlm:framework": "PyTorch",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:total_parameters": weights,
            "mlm:hyperparameters": about["model"] | {key: about[key] for key in ("alignment", "halo")},
            "mlm:input": [
                {
                    "name": "normalised bands, then their mask",
                    "bands": bands,
                    "description": "Sides are multiples of the alignment; pixels without data are 0 in all",
                    "input": {
                        "shape": [-1, about["bands"] + 1, -1, -1],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                }
            ],
            "mlm:output": [
                {
                    "name": "embeddings",
                    "tasks": ["semantic-segmentation"],
                    "description": f"Of unit length, one for {about['stride']} x {about['stride']} pixels",
                    "result": {
                        "shape": [-1, about["dim"], -1, -1],
                        "dim_order": ["batch", "channel", "height", "width"],
                        "data_type": "float32",
                    },
                }
            ],
        },
        "links": [{"rel": "related", "href": "./collection.json"}],
        "assets": {
            "weights": {
                "href": "../model/encoder.safetensors",
                "type": "application/octet-stream",
                "title": "Weights, and the normalisation that they belong to, as safetensors",
                "roles": ["mlm:model", "mlm:weights"],
                # mlm 1.4 looks for bands here, or where STAC 1.1 forbids them
                "raster:bands": [{"name": name, "data_type": "float32"} for name in bands],
                "mlm:artifact_type": "safetensors.torch.save_file",
                **file_properties(path),
            }
        },
    }
