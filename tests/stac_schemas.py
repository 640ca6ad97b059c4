"""The official schemas of STAC and of its extensions, without a network."""

import json
from pathlib import Path

from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

EXTENSIONS = {
    f"https://stac-extensions.github.io/{name}/{version}/schema.json": json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "schemas").glob("*.json"))
    for name, version in [path.stem.split("-")]
}
CORE = {
    "Feature": "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json",
    "Collection": "https://schemas.stacspec.org/v1.1.0/collection-spec/json-schema/collection.json",
    "Catalog": "https://schemas.stacspec.org/v1.1.0/catalog-spec/json-schema/catalog.json",
}


def faults(plain: dict) -> list[str]:
    """Hold an item, a collection or a catalogue against the core schema and those of all its extensions."""
    known = get_local_schema_cache() | EXTENSIONS
    registry = Registry().with_resources([(k, Resource.from_contents(v)) for k, v in known.items()])
    asked = [CORE[plain["type"]], *plain.get("stac_extensions", [])]
    return [
        f"{uri}: {error.message}"
        for uri in asked
        for error in Draft7Validator(known[uri], registry=registry).iter_errors(plain)
    ]
