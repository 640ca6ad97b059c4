"""The configuration: one tree of sections, from which ``config/config.yaml`` and its schema are made.

This module holds values only; `sass.settings` reads, merges and writes them. A stage is fingerprinted by
its own code and by the *values* of the sections it reads (`STAGE_SECTIONS`), so an edit of this file
alone makes nothing stale.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A frozen group of keys; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Catalog(Section):
    """How scenes are gathered into shards, and which of them everything is fitted on."""

    shard_size: Count = Field(
        100,
        description="Scenes in a shard. A shard is one job of each stage; 100 suits scenes of 10-100 megapixels.",
    )
    hold_out: list[str] = Field(
        [], description="Patterns (as in file names) of scene ids that are segmented but never fitted on."
    )
    fit_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Share of the first scan's scenes, drawn by seed, that statistics, encoder and codebook are fitted on. Scenes found by later scans are never fitted on.",
    )
    fit_shards: list[str] | None = Field(
        None,
        description="Shards to fit on instead of those the first scan marked. Changing this refits everything.",
    )
    seed: Seed = Field(0, description="Seed of the draw of fit scenes.")
    vrt_folders: list[str] = Field(
        [],
        description="Folders that virtual rasters (VRT) may draw on, besides their own and those below. Other machines and archives (/vsicurl, /vsizip) stay closed.",
    )


class Ingest(Section):
    """How a raster becomes a Zarr store."""

    bands: list[Count] | None = Field(
        None, description="Bands to keep, counted from 1, in this order. null keeps all but alpha."
    )
    band_names: list[str] | None = Field(
        None, description="Names of the kept bands. null takes them from the raster."
    )
    nodata: float | None = Field(
        None, description="Value that means 'no data', instead of what the raster says."
    )
    erode: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="Pixels to strip from the edge of the valid area, where resampling has left mixed values.",
    )
    crs: str | None = Field(
        None, description="CRS to reproject to, such as EPSG:32633. null keeps each scene's own."
    )
    resolution: Positive | dict[str, Positive] | None = Field(
        None,
        description="Pixel size to resample to, in units of the CRS: one number, or one per sensor ({sensor: size}). null keeps each scene's own.",
    )
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = Field(
        "bilinear", description="Resampling method where pixels are moved."
    )
    chunk: Annotated[int, Field(ge=16, multiple_of=16)] = Field(
        256, description="Side of a Zarr chunk in pixels: the smallest thing read."
    )
    shard: Annotated[int, Field(ge=16, multiple_of=16)] = Field(
        1024,
        description="Side of a Zarr shard (one file, one writer) and of the window read from the raster, in pixels. Sets the memory of this stage.",
    )

    @model_validator(mode="after")
    def _whole_chunks(self):
        if self.shard % self.chunk:
            raise ValueError(f"shard {self.shard} is not a multiple of chunk {self.chunk}")
        return self


class Normalize(Section):
    """Robust statistics of each band over the fit shards: z = clip((t(x) - t(median)) / scale, -clip, clip)."""

    transform: Literal["log", "linear"] = Field(
        "log",
        description="t, taken of the pixels first. log, log(1 + (x - dark) / soft) with dark the archive's darkest value and soft an eighth of the way to the median, suits what is proportional to light: counts, radiance, reflectance, radar intensity. linear takes pixels as they are: choose it for data that are logarithmic already, such as radar in dB, and for indices, elevation or temperature.",
    )
    quantiles: tuple[Fraction, Fraction] = Field(
        (0.16, 0.84),
        description="Quantiles of t(x) whose half distance is the scale; 0.16 and 0.84 give one standard deviation of a normal band.",
    )
    clip: Annotated[float, Field(gt=0)] = Field(
        4.0, description="Normalised values are cut off at this many scales from the median."
    )

    @model_validator(mode="after")
    def _in_order(self):
        if self.quantiles[0] >= self.quantiles[1]:
            raise ValueError(f"quantiles {list(self.quantiles)} must rise")
        return self


class Model(Section):
    """The encoder: ours, with residual stages at strides 4, 8, 16, ... joined by a feature pyramid at stride 4, or one of your own."""

    encoder: str = Field(
        "sass",
        description="sass, or a function that builds another encoder: package.module:function or path/to/file.py:function. It is code that runs: name only what you trust. See docs/encoders.md.",
    )
    options: dict[str, Any] = Field(
        {}, description="Arguments by name of that function, whatever it takes; sass takes none."
    )
    frozen: bool = Field(
        False,
        description="Take the encoder's weights as the function gives them, and train nothing. With sass, these are random weights.",
    )
    widths: Annotated[list[Count], Field(min_length=1, max_length=4)] = Field(
        [64, 128, 256],
        description="Channels of the stages of sass; each further one doubles how far an embedding sees (2 stages of 2 blocks: 59 pixels around, 3: 131, 4: 275).",
    )
    blocks: Annotated[int, Field(ge=1, le=4)] = Field(2, description="Residual blocks in each stage of sass.")
    dim: Annotated[int, Field(ge=4, le=512)] = Field(
        64, description="Length of the unit embedding that sass makes."
    )

    @model_validator(mode="after")
    def _names_a_function(self):
        if self.encoder != "sass" and not all(self.encoder.rpartition(":")[::2]):
            raise ValueError(
                f"encoder {self.encoder!r} is neither sass, nor package.module:function, nor path/to/file.py:function"
            )
        if self.encoder == "sass" and self.options:
            raise ValueError(f"options {self.options} are for an encoder of your own, and encoder is sass")
        return self


class Views(Section):
    """The two random windows of one place. In remote sensing colour is meaning: keep the photometric part mild."""

    scale: tuple[Positive, Positive] = Field((0.5, 2.0), description="Range of the zoom of a view.")
    rotate: bool = Field(True, description="Rotate by any angle and flip. Set false where up matters.")
    shift: Fraction = Field(
        0.25, description="Largest distance between the centres of two views, as a share of the crop."
    )
    gain: Fraction = Field(0.1, description="Spread of the random gain of each band.")
    offset: Fraction = Field(
        0.1, description="Spread of the random offset of each band, in scales of the band."
    )
    gamma: Fraction = Field(0.1, description="Spread of the random exponent of each band.")
    noise: Fraction = Field(
        0.05, description="Largest standard deviation of added noise, in scales of the band."
    )
    blur: Fraction = Field(0.3, description="Share of views that are slightly blurred.")

    @model_validator(mode="after")
    def _in_order(self):
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {list(self.scale)} must not fall")
        return self


class Fine(Section):
    """The fine prototypes: many, equal sizes imposed (Sinkhorn-Knopp). They give information."""

    prototypes: Annotated[int, Field(ge=2)] = Field(64, description="Number of prototypes.")
    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of its semantic term.")


class Coarse(Section):
    """The coarse prototypes: few, of unequal size (centring, teacher smoothed over 9 x 9). They give groups."""

    prototypes: Annotated[int, Field(ge=2)] = Field(8, description="Number of prototypes.")
    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of its semantic term.")


class Train(Section):
    """Training of the encoder by the semantic and the instance term."""

    steps: Count = Field(
        6000, description="Optimiser steps. The schedule is fixed and the last step is the result."
    )
    batch: Count = Field(64, description="Places per step, over all processes.")
    crop: Annotated[int, Field(ge=32, multiple_of=16)] = Field(160, description="Side of a view in pixels.")
    pool: Count = Field(
        2048,
        description="Tiles of twice the crop's side held on the device, rounded up to whole batches; views are cut from them.",
    )
    refresh: Count = Field(
        50,
        description="Steps after which one sixteenth of the pool is replaced by tiles read in the background.",
    )
    points: Count = Field(4096, description="Places of a step whose embeddings the semantic terms compare.")
    lr: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="Peak learning rate (AdamW, linear warm-up, cosine decay)."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="Weight decay of AdamW.")
    ema: Fraction = Field(0.99, description="Momentum of the teacher.")
    fine: Fine = Field(Fine(), description="The fine prototypes.")
    coarse: Coarse = Field(Coarse(), description="The coarse prototypes.")
    instance: Annotated[float, Field(ge=0)] = Field(
        0.3,
        description="Weight of the instance term (InfoNCE between matching places, places of the same meaning left out of the negatives).",
    )
    sinkhorn: Annotated[int, Field(ge=1, le=20)] = Field(
        3, description="Sinkhorn-Knopp iterations: more impose equal sizes harder."
    )
    views: Views = Field(Views(), description="The random views.")
    checkpoint: Count = Field(
        500,
        description="Steps between checkpoints. A killed training goes on from the last one, to the same bytes on a CPU.",
    )
    seed: Seed = Field(0, description="Seed of weights, tiles and views.")


class Features(Section):
    """Embeddings of every scene, by the encoder or as others have made them."""

    source: str | None = Field(
        None,
        description="Embeddings that are there already, and that no encoder shall make: a Zarr store or a raster for each scene, such as embeddings/{scene}.zarr. Nothing is trained then. See docs/encoders.md.",
    )
    window: Annotated[int, Field(ge=64, multiple_of=64)] = Field(
        1024,
        description="Side of the window that goes through the encoder, without its halo, in pixels; rounded down to whole chunks of 64 embeddings. Sets the memory of this stage.",
    )
    appearance: bool = Field(
        True,
        description="Join what pixels look like to their embedding: the mean of each band and the local deviation around it.",
    )
    dtype: Literal["float16", "int8"] = Field(
        "float16",
        description="How a component is stored; int8 nearly halves the store and changes the class of about one pixel in a thousand.",
    )

    @model_validator(mode="after")
    def _one_source_a_scene(self):
        if self.source is not None and "{scene}" not in self.source:
            raise ValueError(
                f"source {self.source!r} names one file for every scene: put {{scene}} where the scene's id stands"
            )
        return self


class Weights(Section):
    """How much each part of the features counts, all being brought to the same variance first."""

    embedding: Annotated[float, Field(ge=0, le=100)] = Field(1.0, description="The encoder's embedding.")
    colour: Annotated[float, Field(ge=0, le=100)] = Field(1.0, description="The local mean of the bands.")
    texture: Annotated[float, Field(ge=0, le=100)] = Field(1.0, description="The local deviation.")


class Codebook(Section):
    """The fine codes, fitted out of core on the features of the fit shards."""

    codes: Annotated[int, Field(ge=2, le=1024)] = Field(128, description="Number of fine codes.")
    weights: Weights = Field(Weights(), description="What the parts of the features count.")
    sample: Count = Field(
        60_000,
        description="Embeddings drawn over the fit scenes, by valid area: they give the metric, start the codes and grow the merge trees. Held in memory.",
    )
    refine: Annotated[int, Field(ge=1, le=20)] = Field(
        2, description="Full passes (Lloyd) over every embedding of the fit shards, streamed."
    )
    seed: Seed = Field(0, description="Seed of draws and initial codes.")


class Hierarchy(Section):
    """The merge tree that turns codes into any number of classes."""

    trees: Annotated[int, Field(ge=2, le=1000)] = Field(
        48, description="Trees whose agreement says which codes belong together; more are steadier."
    )
    smallest: Fraction = Field(
        0.02,
        description="Share of the archive below which a group is no class of its own while there are larger ones. Lower it for rare classes.",
    )
    seed: Seed = Field(0, description="Seed of the trees and of the diagnostics' samples.")


class Segment(Section):
    """From features to maps."""

    classes: Annotated[int, Field(ge=2, le=1024)] = Field(
        8,
        description="Number of classes; at most the number of codes. A change costs seconds a scene, nothing is fitted again.",
    )
    smooth: Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="Radius in pixels over which classes are averaged among pixels that look alike, so that borders follow edges. 0 is off.",
    )
    min_area: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Patches of fewer pixels take the class most common around them. 0 is off."
    )
    window: Annotated[int, Field(ge=64, multiple_of=64)] = Field(
        2048, description="Side of the window that is segmented at a time, in pixels."
    )


class Change(Section):
    """What has changed between scenes of one footprint that were taken one after the other."""

    maps: bool = Field(
        False,
        description="Compare the map of each scene with that of the scene before it. Scenes are of one footprint if they share nine tenths of it; a scene needs a time. See docs/change.md.",
    )
    sure: Fraction = Field(
        0.5,
        description="Confidence from which a change counts as sure: that of the less confident of its two maps.",
    )


class Evaluate(Section):
    """Scores against label rasters, where there are any."""

    ignore: list[int] = Field([255], description="Label ids that are not scored.")
    class_names: dict[int, str] = Field({}, description="Names of the label ids.")
    baselines: list[Literal["raw", "blurred", "deviation", "random"]] = Field(
        ["raw", "blurred", "deviation", "random"],
        description="What the maps are compared with: k-means on raw pixels, on blurred pixels, on pixels with their local deviation, on an encoder with random weights.",
    )
    sample: Count = Field(100_000, description="Pixels drawn over the fit scenes to fit each baseline.")
    seed: Seed = Field(0, description="Seed of the baselines.")


class Report(Section):
    """The pages people open."""

    title: str = Field("Unsupervised segmentation", description="Title of the report.")
    rgb: list[Count] | None = Field(
        None,
        description="Kept bands shown as red, green and blue, counted from 1. null: the first three, or the first as grey.",
    )
    quicklook: Annotated[int, Field(ge=64, le=2048)] = Field(
        768, description="Longest side of a quicklook in pixels."
    )
    pages: Count = Field(
        200, description="Scenes that get a page of their own; every scene stands in the tables."
    )
    chips: Annotated[int, Field(ge=1, le=24)] = Field(6, description="Example chips of each class.")


class Dask(Section):
    """Workers on a cluster for one job that is too large for one node. Where something is computed changes no byte of it, so no key of this section makes anything run again. See docs/dask.md."""

    cluster: Literal["local", "slurm"] = Field(
        "local",
        description="local: the threads of the job itself. slurm: ingest of a huge scene and the passes of the codebook go to workers, jobs that dask-jobqueue submits. What is null below is as its own configuration says.",
    )
    threshold: Annotated[float, Field(ge=0)] = Field(
        1000,
        description="Megapixels from which workers are asked for: those of the scene in ingest, those of all fit scenes in codebook. Less is done by the job itself.",
    )
    workers: Count = Field(4, description="Workers, each a job of the cluster.")
    cores: Count = Field(2, description="Threads of a worker.")
    memory: Count = Field(4000, description="Memory of a worker, in MiB.")
    walltime: Count = Field(
        60, description="Time limit of a worker, in minutes. One that has reached it is replaced."
    )
    wait: Positive = Field(
        30, description="Minutes without any worker after which the job gives up, with an error."
    )
    partition: str | None = Field(None, description="Partition of the workers.")
    account: str | None = Field(None, description="Account that the workers are charged to.")
    interface: str | None = Field(
        None, description="Network between the job and its workers, such as ib0. null takes the host's own."
    )
    directives: list[str] = Field([], description="Further arguments of sbatch, such as --constraint=epyc.")


class Config(Section):
    """The whole configuration of a run."""

    run: str = Field("results/run", description="Folder of the run: everything is written below it.")
    catalog: Catalog = Catalog()
    ingest: Ingest = Ingest()
    normalize: Normalize = Normalize()
    model: Model = Model()
    train: Train = Train()
    features: Features = Features()
    codebook: Codebook = Codebook()
    hierarchy: Hierarchy = Hierarchy()
    segment: Segment = Segment()
    change: Change = Change()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    dask: Dask = Dask()


STAGE_SECTIONS: dict[str, tuple[str, ...]] = {
    "scan": ("catalog",),
    "ingest": ("ingest",),
    "normalize": ("normalize",),
    "train": ("model", "train"),
    "features": ("features",),
    "codebook": ("codebook",),
    "hierarchy": ("hierarchy",),
    "name": (),
    "segment": ("segment",),
    "change": ("change.sure",),
    "baselines": ("model", "segment.classes", "evaluate.baselines", "evaluate.sample", "evaluate.seed"),
    "evaluate": ("evaluate",),
    "report": tuple(name for name in Config.model_fields if name not in ("run", "dask")),
}
"""The sections, or single keys, that determine what each stage makes; the report shows them all.

Nothing else of the configuration reaches a stage but ``dask``, which says where work is done.
"""
