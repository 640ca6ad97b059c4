"""Where pixels lie: a CRS and a transform, or neither."""

from dataclasses import dataclass
from typing import Any

from affine import Affine
from rasterio.crs import CRS


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a scene lie.

    ``crs`` is None, and ``transform`` the identity, for a scene without georeference.
    """

    crs: CRS | None
    transform: Affine

    @property
    def known(self) -> bool:
        """Whether pixels have a place on a map."""
        return self.crs is not None

    def coarsened(self, stride: int) -> "Georeference":
        """Return the georeference of an array with one pixel for ``stride`` x ``stride``."""
        a, b, c, d, e, f = list(self.transform)[:6]
        return Georeference(self.crs, Affine(a * stride, b * stride, c, d * stride, e * stride, f))

    def as_json(self) -> dict[str, Any]:
        """Return plain data: ``{"crs": WKT or None, "transform": six numbers}``."""
        wkt = self.crs.to_wkt() if self.crs else None
        return {"crs": wkt, "transform": list(self.transform)[:6]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Georeference":
        """Read what `as_json` gave."""
        crs = CRS.from_wkt(value["crs"]) if value["crs"] else None
        return cls(crs, Affine(*value["transform"]))
