"""Every setting of a run, with its limits: one frozen model a section.

`method` says which settings there are, and so does `model.grid.kind` for the grid network: a key that belongs to
another kind is an error, and so is an unknown key or a value of the wrong type. `files` reads and writes them;
what relates settings of several sections is in `methods/checks.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from infdiff.data.image_set import CACHES
from infdiff.data.labels import label_dim
from infdiff.diffusion.latent_processes import PROCESSES as LATENT_PROCESSES
from infdiff.diffusion.mollified import TARGETS
from infdiff.diffusion.samplers import EDM_SAMPLERS, SAMPLERS, VARIANCES
from infdiff.diffusion.schedules import SCHEDULES, SPACINGS
from infdiff.diffusion.times import DRAWS
from infdiff.diffusion.weighting import WEIGHTINGS
from infdiff.nn.initial_taps import INITIAL_TAPS
from infdiff.ops import BACKENDS
from infdiff.ops.gpu.kernels import MAX_WINDOW
from infdiff.points import KINDS
from infdiff.schema import (
    BelowOne,
    Count,
    CountBySize,
    CountOrNone,
    Counts,
    CountsOrNone,
    Limits,
    Name,
    NotNegative,
    Part,
    Positive,
    Section,
    Seed,
    SizeText,
    SizeTextOrNone,
    Subsample,
    UpToOne,
    WeightBySize,
    odd,
    one_of,
    tag_of,
)
from infdiff.training.settings import OptimiserSettings

UPSCALES = ("none", "bilinear", "cosine", "windows")
FREEZES = ("spatial", "none")
WIDENERS = ("blocks", "resampling")
DEBLURS = ("auto", "network", "wiener", "none")


class DataSettings(Section):
    path: str = ""  # LMDB of prepare-data; empty: the embedded demo faces
    validation_path: str = ""  # LMDB of held-out images; empty: a part of `path` is held out
    validation_fraction: Part = 0.05  # held out of `path` where there is no validation_path
    size: SizeText = 64  # base resolution, and that of training unless resolutions are given: 64, or 96x128 (H x W)
    # Trained on these, with these weights, one a step: {32: 0.2, 48x64: 0.8}; empty: on `size` alone.
    resolutions: WeightBySize = Field(default_factory=dict)
    batch_sizes: CountBySize = Field(default_factory=dict)  # at a resolution; train.batch_size at the others
    flip: bool = False  # mirror every second image
    channels: Annotated[int, Field(ge=1, le=4096)] = 3  # of the images; training takes it from the store
    # The last channels of stored fields, which are known: a condition of what is generated, the `channels` before them.
    condition_channels: Annotated[int, Field(ge=0, le=4096)] = 0
    # Of sets with missing pixels: the fewest valid ones of an image at each size. Training takes them from the store.
    valid_pixels: CountBySize = Field(default_factory=dict)
    cache: Annotated[str, one_of(CACHES)] = "ram"  # none (decode in workers), ram or device (all images as uint8)
    workers: Annotated[int, Field(ge=0, le=1024)] = 2  # processes that decode, with cache: none


class EDMData(DataSettings):
    # Probability of each of EDM's augmentations, which a label tells the network; 0: none. Half of the images are then
    # flipped, whatever the probability.
    augment: UpToOne = 0.0


class GridSettings(Section):
    """A grid network, inside that of ∞-Diff or alone: what all kinds have."""

    any_size: ClassVar[bool]  # whether nothing in the network depends on the size of the grid
    on_points: ClassVar[bool] = False  # whether there is no grid

    kind: str
    channels: Count = 64
    multipliers: Annotated[Counts, Field(min_length=1)] = (1, 2, 4)  # channels of each level, in units of `channels`
    blocks: Count = 2  # residual blocks a level
    dropout: BelowOne = 0.0


class UNetSettings(GridSettings):
    """A U-Net that knows the size of its grid."""

    any_size = False

    kind: Literal["unet"] = "unet"
    dropout_size: Count = 16  # dropout on grids of at most this side
    attention_sizes: Counts = (16, 8)  # attention on grids with these sides
    # blocks or resampling: which change the width of the features. resampling: the convolutions between levels, on the
    # coarser grid, and blocks on the way down are as wide as the level above, for about 0.65 of the cost.
    widen_in: Annotated[str, one_of(WIDENERS)] = "blocks"


class DFUSettings(GridSettings):
    """Dual convolutions: nothing depends on the size."""

    any_size = True

    kind: Literal["dfu"] = "dfu"
    attention_levels: CountsOrNone = ()  # levels with attention; 0 is the top one
    # Lowest frequencies of the top level's spectral convolutions; 0: the multi-resolution U-Net.
    modes: CountOrNone = 16
    kernel_size: Annotated[int, odd()] = 3  # of the spatial convolutions; 1: the FNO U-Net
    factor_rank: CountOrNone = 0  # of the spectral weights; 0: full ones

    @model_validator(mode="after")
    def _levels_exist(self) -> DFUSettings:
        levels = range(len(self.multipliers))
        if not set(self.attention_levels) <= set(levels):
            raise ValueError(f"attention_levels: {list(self.attention_levels)}: want levels 0 to {levels[-1]}")
        return self


class SparseSettings(GridSettings):
    """Points in place of a grid, at random fewer from level to level, for the ablation: sparse blocks as around it."""

    any_size = False
    on_points = True

    kind: Literal["sparse"] = "sparse"


AnyGrid = Annotated[
    Annotated[UNetSettings, Tag("unet")]
    | Annotated[DFUSettings, Tag("dfu")]
    | Annotated[SparseSettings, Tag("sparse")],
    Discriminator(tag_of("kind", "unet")),
]


class ConditionSettings(Section):
    """Labels that images are conditioned on. Training takes them from the store, if it has labels."""

    classes: CountOrNone = 0  # number of classes; 0: none
    vector: CountOrNone = 0  # length of a vector of numbers; 0: none

    @model_validator(mode="after")
    def _one_kind(self) -> ConditionSettings:
        if self.classes and self.vector:
            raise ValueError(f"vector: {self.vector}: labels are classes or vectors: set one of them to 0")
        return self


class ModelSettings(Section):
    condition_dim: Count = 512  # of the vector made from t, z and a label
    condition: ConditionSettings = ConditionSettings()
    grid: AnyGrid = UNetSettings()


class InfinityDiffModel(ModelSettings):
    channels: Count = 64  # of the sparse level
    kernel_size: Annotated[int, odd(MAX_WINDOW)] = 7
    blocks: Count = 3  # sparse blocks down, and as many up
    mlp_ratio: Count = 2
    depthwise: bool = True  # false: regular convolutions, for the ablation
    nonlinear_kernel: bool = False  # true: convolution, activation, convolution, for the ablation
    # smooth: taps start as Gaussians of many widths, some shifted, some differences; noise: each drawn by itself
    initial_taps: Annotated[str, one_of(INITIAL_TAPS)] = "noise"
    gated_input: bool = False  # the network's input, times a gate that t and z set, is added to its output
    sharp: bool = False  # a second output restores what the mollifier takes away
    # auto, lattice, torchsparse or dense: how sparse convolutions are computed
    backend: Annotated[str, one_of(BACKENDS)] = "auto"
    z_dim: CountOrNone = 1024  # length of the latents; 0: no autoencoder
    separate_latent: bool = False  # z scales each block's features by itself; else it is one vector with t's embedding
    positions: bool = True  # points also carry sines and cosines of their coordinates
    layout: bool = True  # the condition is also laid out over the deepest grid, as a picture of 4 x 4
    global_pooling: bool = False  # of the encoder's deepest grid; else it is averaged to 4 x 4, and read cell by cell
    standardized_latents: bool = True  # by running estimates of their mean and variance
    # Side of a coarse image by which latents are read and written directly, next to the networks; 0: none.
    sketch_side: CountOrNone = 0
    grid_size: SizeText = 32  # of the grid inside the network: 32, or 32x48
    scale_grid: bool = False  # that grid is as much larger as the image is than data.size


class DiffusionSettings(Section):
    """The process of ∞-Diff."""

    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"  # cosine, linear or constant
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    shift: Positive = 1.0  # of the schedule: factor of signal over noise at every time
    sigma: Annotated[float, Field(ge=0, le=1000)] = 1.0  # width of the mollifier in training pixels
    target: Annotated[str, one_of(TARGETS)] = "mollified_noise"  # mollified_noise, v, noise or image
    weighting: Annotated[str, one_of(WEIGHTINGS)] = "uniform"  # of the loss over times: uniform or min_snr
    data_std: Positive = 0.5  # root mean square of the images' values in [-1, 1]
    scaled_input: bool = True  # the network sees x_t scaled to variance 1; else x_t as it is


class EDMSettings(Section):
    """The process of EDM."""

    noise: Annotated[str, one_of(("white", "mollified"))] = "white"  # white: of variance 1 a pixel at every resolution
    mollifier_sigma: Annotated[float, Field(gt=0, le=1000)] = 1.0  # noise mollified: its width in training pixels
    data_std: Positive = 0.5  # standard deviation of the images' values in [-1, 1]
    log_mean: float = -1.2  # of ln sigma in training
    log_std: Positive = 1.2
    sigma_min: Positive = 0.002  # of sampling
    sigma_max: Positive = 80.0
    rho: Positive = 7.0  # steps of sampling are even in sigma^(1 / rho)

    @model_validator(mode="after")
    def _settings_agree(self) -> EDMSettings:
        if not self.sigma_max > self.sigma_min:
            raise ValueError(f"sigma_max: {self.sigma_max:g}: want more than edm.sigma_min, {self.sigma_min:g}")
        if self.noise != "mollified" and self.mollifier_sigma != 1:
            raise ValueError(
                f"mollifier_sigma: {self.mollifier_sigma:g}: goes with edm.noise: mollified, not {self.noise}"
            )
        return self


class FinetuneSettings(Section):
    """DFU's fine-tuning: also on the largest resolution, bilinearly upsampled (appendix C)."""

    run: str = ""  # whose EMA weights training starts from; `train --finetune` sets it
    size: SizeTextOrNone = 0  # R, larger than all of data.resolutions; 0: no fine-tuning
    weight: Annotated[float, Field(gt=0, le=1)] = 0.2  # w_R; the resolutions share the rest evenly
    # On upsampled batches. spatial: all spatial convolutions but the bottom level's stay as they are; none: all move.
    freeze: Annotated[str, one_of(FREEZES)] = "spatial"


class TrainSettings(OptimiserSettings):
    """Training of the images' model: what is shown and measured on the way."""

    sample_every: Count = 5000  # steps between previews, which wait until all of them take a tenth of the time
    validation_images: Count = 256  # fewer where checkpoints are close together, so that validation takes little time
    # Probability with which an image's label and condition channels are left out, for classifier-free guidance.
    condition_drop: UpToOne = 0.1
    eval_every: CountOrNone = 0  # steps between small evaluations of samples, each with a checkpoint; 0: none
    eval_images: Annotated[int, Field(ge=2, le=1_000_000)] = 128  # sampled, and training images compared with


class InfinityDiffTraining(TrainSettings):
    # Train on one pixel in this many: 4; or at several rates, one a step with these weights: {1: 1, 4: 6, 16: 1}.
    subsample: Subsample = 4.0
    times: Annotated[str, one_of(DRAWS)] = "uniform"  # uniform, or lognormal in noise over signal
    times_log_mean: float = -0.5  # times lognormal: mean and standard deviation of ln(noise std / signal std)
    times_log_std: Positive = 1.2
    sharp_weight: Positive = 0.3  # model.sharp: of its loss, next to that of the prediction
    points: Annotated[str, one_of(KINDS)] = "uniform"  # uniform, stratified or halton
    latent_noise: NotNegative = 0.0  # standard deviation of noise on the latents, which themselves have 1


class LatentTraining(OptimiserSettings):
    batch_size: Count = 256
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-4
    weight_decay: NotNegative = 0.04
    bfloat16: bool = False
    log_every: Count = 500


class LatentSettings(Section):
    """The second model, of the latents: `infdiff train-latent`."""

    width: Count = 2048
    layers: Annotated[int, Field(ge=2, le=1000)] = 10
    # ddpm: noise is predicted at even times of a schedule, and latents are drawn by DDIM. edm: as EDM does for images.
    process: Annotated[str, one_of(LATENT_PROCESSES)] = "ddpm"
    schedule: Annotated[str, one_of(SCHEDULES)] = "constant"  # these two are of ddpm
    diffusion_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    whiten: bool = False  # latents are scaled along their principal axes, not each number by itself
    sample_steps: Count = 100  # of DDIM or Heun's method, when images are sampled
    train: LatentTraining = LatentTraining()

    @model_validator(mode="after")
    def _steps_exist(self) -> LatentSettings:
        if self.sample_steps > self.diffusion_steps:
            raise ValueError(f"sample_steps: {self.sample_steps}: want 1 to latent.diffusion_steps")
        return self


class SampleSettings(Section):
    sampler: str
    steps: Count = 50
    # none: sample at the size asked for. bilinear: at the training size, and resize. cosine: sizes beyond the training
    # size, along either axis, are its cosine series, which adds nothing finer; smaller ones are sampled.
    # windows: then finer detail is drawn in windows of the training size, as in super-resolution (∞-Diff with latents).
    upscale: Annotated[str, one_of(UPSCALES)] = "none"
    # What becomes of the mollifier's blur. network: its second output (model.sharp) restores detail; wiener: the Wiener
    # inverse; none: T x_0 as it is; auto: network where there is one, else wiener.
    deblur: Annotated[str, one_of(DEBLURS)] = "auto"
    deblur_epsilon: Positive = 0.1  # noise-to-signal ratio of the Wiener inverse


class InfinityDiffSampling(SampleSettings):
    sampler: Annotated[str, one_of(SAMPLERS)] = "ddim"  # ddim, ddpm or dpm++
    spacing: Annotated[str, one_of(SPACINGS)] = "time"  # steps even in t; (noise / signal)^(1/7); its log
    eta: UpToOne = 0.0  # noise of ddim: 0 none, 1 as much as ddpm
    variance: Annotated[str, one_of(VARIANCES)] = (
        "posterior"  # of ddpm's steps: posterior (beta-tilde_t) or beta (beta_t)
    )
    # Estimates of images are clipped to these: [[low, high]] of all channels, or of each; empty: -1 to 1. Of fields,
    # training takes them from the store.
    limits: Limits = ()
    truncation: NotNegative = 1.0  # of the sampled latents' spread about their mean


class EDMSampling(SampleSettings):
    sampler: Annotated[str, one_of(EDM_SAMPLERS)] = "heun"
    churn: NotNegative = 0.0  # noise of heun (S_churn): 0 none


class Config(Section):
    """Settings that the configurations of all methods share."""

    method: str
    name: Name = "run"
    seed: Seed = 0
    data: DataSettings = DataSettings()
    model: ModelSettings
    train: TrainSettings
    sample: SampleSettings

    @property
    def latent_dim(self) -> int:
        """Length of the latents of images; 0 without an encoder."""
        return 0

    @property
    def label_dim(self) -> int:
        """Length of the row that networks see of an image's label; 0 without labels."""
        return label_dim(self.model.condition.classes, self.model.condition.vector)

    @property
    def subsample_rates(self) -> dict[float, float]:
        """The weight of each rate at which training sees pixels: one in this many."""
        return {1.0: 1.0}

    @property
    def subsample(self) -> float:
        """The densest of these rates."""
        return min(self.subsample_rates)

    @property
    def truncation(self) -> float:
        """Spread of sampled latents about their mean, over that of the latents of images."""
        return 1.0


class InfinityDiffConfig(Config):
    """∞-Diff: mollified diffusion on points, with or without an autoencoder."""

    method: Literal["infinity_diff"] = "infinity_diff"
    model: InfinityDiffModel = InfinityDiffModel()
    diffusion: DiffusionSettings = DiffusionSettings()
    train: InfinityDiffTraining = InfinityDiffTraining()
    sample: InfinityDiffSampling = InfinityDiffSampling()
    latent: LatentSettings = LatentSettings()

    @property
    def latent_dim(self) -> int:
        return self.model.z_dim

    @property
    def subsample_rates(self) -> dict[float, float]:
        rates = self.train.subsample
        if not isinstance(rates, dict):
            return {rates: 1.0}
        return {float(rate): weight for rate, weight in rates.items() if weight}

    @property
    def truncation(self) -> float:
        return self.sample.truncation


class EDMConfig(Config):
    """EDM with a grid network alone, on all pixels: DFU and its baselines."""

    method: Literal["edm"] = "edm"
    data: EDMData = EDMData()
    model: ModelSettings = ModelSettings()
    edm: EDMSettings = EDMSettings()
    train: TrainSettings = TrainSettings()
    sample: EDMSampling = EDMSampling()
    finetune: FinetuneSettings = FinetuneSettings()


AnyConfig = Annotated[
    Annotated[InfinityDiffConfig, Tag("infinity_diff")] | Annotated[EDMConfig, Tag("edm")],
    Discriminator(tag_of("method", "infinity_diff")),
]
