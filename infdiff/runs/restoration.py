"""Images from any measurement of them, with a trained model of ∞-Diff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from infdiff.coordinates import Size, format_size
from infdiff.data.fields import FieldDescription
from infdiff.diffusion.conditions import UNCONDITIONAL, Condition
from infdiff.diffusion.measurements import Measurement
from infdiff.errors import OptionError, UserError, first_line
from infdiff.methods.sampling import SamplingOptions, check_guidance
from infdiff.pipelines.restore import GUIDANCE, Guidance
from infdiff.pipelines.restore import restore as restore_images
from infdiff.runs.trained import OnStep, TrainedModel
from infdiff.seeding import generator_for

# By how much a linear operator, or a pseudo-inverse, may be off, relative to what it makes.
_TOLERANCE = 1e-2

Operator = Callable[[Tensor], Tensor]


@torch.no_grad()
def restore(
    run: TrainedModel,
    measurement: Measurement,
    size: Size,
    indices: Sequence[int],
    *,
    guidance: Guidance,
    options: SamplingOptions,
    z: Tensor | None = None,
    condition: Condition = UNCONDITIONAL,
    seed: int = 0,
    rounded: bool = True,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images (N, C, H, W) of a measurement of N images, or of one: as many variants of it as `indices`.

    options: those of `editing.filling_options`; tile: by projection alone. z: latents (N, z_dim) or (1, z_dim); by
    default those of the pseudo-inverse's image, or, without a pseudo-inverse, drawn as for new images. condition: of
    the N images, at their size.
    """
    trained = run.infinity_diff
    if guidance.differentiates:
        linear = _is_linear(measurement.operator, (run.config.data.channels, *size), measurement.values)
        rows = None
    else:
        linear, rows = True, options.tile
    if z is None:
        z = _latents(run, measurement, indices, seed, condition)
    z = None if z is None else z.to(run.device).expand(len(indices), -1)
    made = restore_images(
        trained.network_at(run.denoiser, size, z, len(indices), run.device, rows, condition),
        trained.process,
        measurement,
        guidance,
        size=size,
        seed=seed,
        indices=indices,
        device=run.device,
        sample=trained.sampler(options),
        sharp_at=trained.sharp_at(options),
        linear=linear,
        on_step=on_step,
        channels=run.config.data.channels,
    )
    images = trained.process.clipped(trained.deblurred(made, options))
    if measurement.pseudo_inverse is not None and measurement.noise == 0 and guidance.weight > 0:
        images = measurement.agreed(images)
    return run.as_asked(images, rounded)


def measurement_of(
    values: Any,
    operator: Any,
    size: Size,
    *,
    pseudo_inverse: Operator | None = None,
    noise: float = 0.0,
    device: torch.device,
    channels: int = 3,
    field: FieldDescription | None = None,
) -> Measurement:
    """A measurement of images of a size, checked.

    operator: a callable on images (B, C, H, W) in [-1, 1], or on fields in their units, which `field` describes. Where
    it has the methods `A` and `A_dagger`, as the physics of deepinv, these are what measures without noise, and the
    pseudo-inverse, if it is one: that of a blur with borders is iterated, and too rough. Raises UserError when what the
    operator makes cannot be compared with the values, or `pseudo_inverse` is none.
    """
    if not callable(operator):
        raise UserError(f"operator: {type(operator).__name__} cannot be called: want a function of images (B, C, H, W)")
    if not 0 <= noise < float("inf"):
        raise OptionError("noise", noise, "want a standard deviation of 0 or more, in the measurement's units")
    own_inverse = getattr(operator, "A_dagger", None) if pseudo_inverse is None else None
    measure: Operator = getattr(operator, "A", operator)
    given = _tensor(values).to(device)
    measure, inverse, shift = _of_normalised(field, measure, pseudo_inverse or own_inverse, size, device)
    # Not flat, so that an operator that ignores what it is given shows.
    probe = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)).to(device) * 1.6 - 0.8
    made = _called("operator", measure, probe)
    if made.shape[1:] != given.shape[1:] or made.dim() != given.dim():
        raise UserError(
            f"operator: makes {tuple(made.shape[1:])} of an image of {format_size(size)}, and each measured one is "
            f"{tuple(given.shape[1:])}: the shapes have to agree"
        )
    if made.dtype != given.dtype:
        raise UserError(f"operator: makes {made.dtype} of float32 images, and what was measured is {given.dtype}")
    if inverse is not None:
        try:
            _check_inverse(measure, inverse, made, probe)
        except UserError:
            if own_inverse is None:
                raise
            inverse = None
    return Measurement(given - shift, measure, inverse, noise)


def _check_inverse(measure: Operator, inverse: Operator, made: Tensor, probe: Tensor) -> None:
    """Raise UserError unless a pseudo-inverse inverts what the operator made of a probe."""
    back = _called("pseudo_inverse", inverse, made)
    if back.shape != probe.shape:
        raise UserError(f"pseudo_inverse: makes {tuple(back.shape)}, want images {tuple(probe.shape)}")
    off = _off(_called("operator", measure, back.to(probe)), made)
    if off > _TOLERANCE:
        raise UserError(
            f"pseudo_inverse: measured again, what it makes is off by {off:.0%}: want operator(pseudo_inverse(y)) "
            "to be y for every y that the operator makes"
        )


def guidance_for(
    measurement: Measurement,
    size: Size,
    kind: str | None,
    weight: float = 1.0,
    iterations: int = 1,
    channels: int = 3,
    field: FieldDescription | None = None,
) -> Guidance:
    """The guidance that is asked for; by default projection where there is a pseudo-inverse, else gradients.

    field: of fields. Raises OptionError when it cannot work with the measurement.
    """
    check_guidance(weight)
    if kind == "projection" and field is not None and field.affine is None:
        normalised = f"the fields are normalised by {field.normalisation.kind}, which is no affine map"
        raise OptionError("guidance", kind, f"{normalised}: take gradient, or prepare the data with meanstd")
    invertible = measurement.pseudo_inverse is not None
    kind = kind or ("projection" if invertible else "gradient")
    if kind not in GUIDANCE:
        raise OptionError("guidance", kind, f"choose one of {', '.join(GUIDANCE)}")
    least = 0 if kind == "projection" else 1
    if iterations < least:
        raise OptionError("iterations", iterations, f"want {least} or more with guidance by {kind}")
    if kind == "projection":
        if not invertible:
            raise OptionError("guidance", kind, "wants a pseudo_inverse, or an operator whose A_dagger is one to 1 %")
        if not _is_linear(measurement.operator, (channels, *size), measurement.values):
            raise OptionError("guidance", kind, "wants a linear operator, and this one is not: take gradient")
    else:
        probe = torch.zeros(1, channels, *size, device=measurement.values.device, requires_grad=True)
        with torch.enable_grad():
            differentiable = measurement.operator(probe).requires_grad
        if not differentiable:
            raise OptionError("guidance", kind, "the operator's result has no gradient in the images")
    return Guidance(kind, weight, iterations)


def _of_normalised(
    field: FieldDescription | None,
    measure: Operator,
    pseudo_inverse: Operator | None,
    size: Size,
    device: torch.device,
) -> tuple[Operator, Operator | None, Tensor | float]:
    """The operator and its pseudo-inverse as functions of normalised images, and what to take off measured values.

    What an operator makes of the offset of an affine normalisation is taken off, so that a linear one stays linear. Of
    another normalisation there is no pseudo-inverse.
    """
    if field is None:
        return measure, pseudo_inverse, 0.0
    if field.affine is None:
        return (lambda images: measure(field.differentiable_units(images))), None, 0.0
    factor, offset = (part.to(device) for part in field.affine)
    shift = _called("operator", measure, offset.expand(1, -1, *size))
    back = None if pseudo_inverse is None else (lambda values: pseudo_inverse(values) / factor)
    return (lambda images: measure(factor * images + offset) - shift), back, shift


def _tensor(values: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"measured: {type(values).__name__} is no tensor and no array: {first_line(error)}") from error
    if not tensor.is_floating_point():
        raise UserError(f"measured: {tensor.dtype}: want floating-point values, as the operator makes them")
    if tensor.dim() < 2 or len(tensor) == 0:
        raise UserError(f"measured: shape {tuple(tensor.shape)}: want (B, ...), the first axis for images")
    if not tensor.isfinite().all():
        count = int((~tensor.isfinite()).sum())
        raise UserError(f"measured: {count} of {tensor.numel()} values are not finite: leave them out of the operator")
    return tensor.float() if tensor.dtype == torch.float64 else tensor


@torch.no_grad()
def _called(name: str, function: Operator, argument: Tensor) -> Tensor:
    try:
        made = function(argument)
    except Exception as error:
        shape = tuple(argument.shape)
        raise UserError(f"{name}: fails on {shape}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(made, Tensor):
        raise UserError(f"{name}: makes {type(made).__name__} of a tensor: want a tensor")
    if not made.isfinite().all():
        raise UserError(f"{name}: makes values that are not finite of finite ones")
    return made


@torch.no_grad()
def _is_linear(operator: Operator, shape: tuple[int, int, int], values: Tensor) -> bool:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(1, *shape, generator=generator).to(values.device) for _ in range(2))
    return _off(operator(a - 0.5 * b), operator(a) - 0.5 * operator(b)) <= _TOLERANCE


def _off(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).norm() / wanted.norm().clamp(min=torch.finfo(wanted.dtype).tiny))


def _latents(
    run: TrainedModel, measurement: Measurement, indices: Sequence[int], seed: int, condition: Condition
) -> Tensor | None:
    if run.encoder is None:
        return None
    if measurement.pseudo_inverse is not None:
        back = run.infinity_diff.process.clipped(measurement.back(measurement.values))
        return run.encode(run.as_held(back))
    generators = [generator_for(run.device, seed, "latent", i) for i in indices]
    if run.latents is None:
        return None
    return run.latents.sample(generators, condition=condition)
