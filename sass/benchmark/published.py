"""What others have published on Potsdam-3: their numbers, by their own training and partitions."""

from dataclasses import dataclass

IIC = "Ji et al. 2019, ICCV"
PRIMAPS = "Hahn et al. 2024, TMLR"
SCRATCH, DINO, DINO2 = "from scratch", "DINO ViT-B/8", "DINOv2 ViT-B/14"
UNSTATED = "not stated"


@dataclass(frozen=True)
class Published:
    """One published score."""

    method: str
    backbone: str
    pretrained: bool | None
    """Whether the backbone was trained on other images before; None where it is not known."""
    accuracy: float
    """Percent of pixels."""
    miou: float | None
    """Mean intersection over union in percent, where it was published."""
    post: str
    """What was done to the maps afterwards."""
    source: str
    """The paper of the method, or one that compares it; later ones may have measured some of the numbers."""


PUBLISHED = (
    Published("k-means", SCRATCH, False, 45.7, None, UNSTATED, IIC),
    Published("Isola", SCRATCH, False, 63.9, None, UNSTATED, IIC),
    Published("IIC", f"{SCRATCH}, RGB-IR", False, 65.1, None, UNSTATED, IIC),
    Published("AC", SCRATCH, False, 66.5, None, UNSTATED, "Ouali et al. 2020, ECCV"),
    Published("InMARS", SCRATCH, False, 70.1, None, UNSTATED, "Mirsadeghi et al. 2021, RA-L"),
    Published("InfoSeg", SCRATCH, False, 71.6, None, UNSTATED, "Harb and Knöbelreiter 2021, GCPR"),
    Published("SASS, the paper", "not known", None, 71.89, 55.7, "not known", "its abstract, IC-NIDC 2023"),
    Published("DINO, frozen, k-means", DINO, True, 66.1, 49.4, UNSTATED, PRIMAPS),
    Published("STEGO", DINO, True, 77.0, 62.6, "CRF", "Hamilton et al. 2022, ICLR"),
    Published("DINOv2, frozen, k-means", DINO2, True, 82.4, 69.9, UNSTATED, PRIMAPS),
    Published("HP", DINO, True, 82.4, 69.1, "CRF", "Seong et al. 2023, CVPR"),
    Published("SmooSeg", DINO, True, 82.7, 70.3, "CRF", "Lan et al. 2023, NeurIPS"),
    Published("PriMaPs-EM", DINO2, True, 83.1, 71.0, UNSTATED, PRIMAPS),
    Published("HP + PriMaPs-EM", DINO, True, 83.3, 71.0, UNSTATED, PRIMAPS),
    Published("EAGLE", DINO, True, 83.3, 71.1, UNSTATED, "Kim et al. 2024, CVPR"),
)
