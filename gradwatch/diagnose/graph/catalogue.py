"""What is known of torch's operations, a row each: to teach the diagnosis one more is to add a row.

An operation without a row still gets its place, the answer of its own formula (``look.probe``) and its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["ROWS", "UNKNOWN", "Family", "Row"]

Family = Literal[
    "view",  # hands values on in another shape, place or type
    "joint",  # joins tensors
    "selection",  # lets some elements through, and others not
    "overwriting",  # writes over some elements
    "sum",
    "reduction",  # a mean, a maximum
    "product",  # elementwise
    "contraction",  # sums of products
    "normaliser",
    "activation",  # elementwise, flat somewhere
    "clamp",  # flat beyond limits
    "distance",  # flat at 0: a length, a power, an absolute value
    "softmax",
    "attention",
    "gates",  # a fused recurrent layer
    "loss",
    "steps",  # constant between jumps
    "function",  # elementwise, never flat
    "unknown",
]

Limits = tuple[str | float | None, str | float | None]


class Row(NamedTuple):
    """What is known of one operation.

    Attributes:
        family: what sort of operation it is.
        saved: by number of its input, the name under which that is saved; "" for one that is not.
        result: the name under which what it made is saved.
        flat: kind of cause where it is flat; "" where it never is.
        as_loss: the same where the loss goes through it: a hinge that is kept, a distance of 0.
        bound: how large what it makes is: at most ``one``, no larger than its ``inputs``, a ``product``,
            ``quotient`` or ``sum`` of them, the ``square`` of that, the ``total`` of all elements, what is
            ``normalised``, or anything.
        never_nan: whether it makes Inf of what is too large, and NaN of NaN alone.
        singular: where its slope is infinite and its value is not: a name and values of what it saved.
        pole: where both are infinite.
        limits: of a clamp, numbers or the names under which they are saved.
        without: where nothing was given under this name, it is another operation: a clamp without a maximum.
        again: makes its result of its saved inputs.
        exponent: of a power, the name under which its exponent is saved.
        shares: of a softmax, makes shares of its result.
        moves: what a view does: ``nothing`` but to copy or cast, it ``counts`` the same elements otherwise, it
            ``cuts`` some off, or moves them about.
        fills: whether it writes a constant over some elements.
        reason: why nothing can be told of it.
        once: whether its backward may use up the space that it reserved, so that it cannot be asked again.
        overflows: whether it makes NaN or Inf of finite numbers only where these are too large for its type.
        remedy: what to do where it made NaN or Inf otherwise; "" where the remedy of the kind fits.
        constant: the same where what it makes does not depend on what comes in.
    """

    family: Family
    saved: tuple[str, ...] = ("self",)
    result: str = ""
    flat: str = ""
    as_loss: str = ""
    bound: Literal["one", "inputs", "normalised", "product", "quotient", "square", "sum", "total", "any"] = "any"
    never_nan: bool = False
    singular: tuple[str, tuple[float, ...]] | None = None
    pole: tuple[str, tuple[float, ...]] | None = None
    limits: Limits = (None, None)
    without: tuple[str, str] | None = None
    again: Callable[..., Tensor] | None = None
    exponent: str = ""
    shares: Callable[[Tensor], Tensor] | None = None
    moves: Literal["nothing", "counts", "cuts", "about"] = "about"
    fills: bool = False
    reason: str = ""
    once: bool = False
    overflows: bool = False
    remedy: str = ""
    constant: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        """The names under which what ``again`` takes is saved."""
        return tuple(filter(None, (*self.saved, self.exponent)))

    @property
    def splits(self) -> bool:
        """Whether its inputs can be looked at part by part: each element goes its own way."""
        return self.family in ("activation", "clamp", "contraction", "function", "product", "selection")

    @property
    def teaches(self) -> bool:
        """Whether it makes a loss of what a network gave; a hinge does not, which is an activation elsewhere."""
        return self.as_loss != "" and self.flat not in ("dead-relu", "clamped", "masked")


_ROOT = "Put an epsilon inside the root, sqrt(x + eps): its slope is infinite at 0."
_DIVIDED = "Keep what is divided by away from 0: add an epsilon to it, or divide only where it is not 0."
_LOGARITHM = "Keep what the logarithm takes above 0: clamp it, or use log_softmax, logsigmoid or log1p."
_LENGTHS = "Check the lengths: each target must fit into its input; or give the CTC loss zero_infinity=True."
_NORM = "Take this norm out, or let it normalise over more than one element: what it makes is its bias."
_NO_EPSILON = "Give this norm an epsilon above 0: what it normalises does not vary, and it divides by that."
_ONE_CLASS = "Use a sigmoid, or two classes: over one class it is 1 whatever comes in."
_STEPS = (
    "Let the gradient through by hand, x + (y - x).detach(), or sample smoothly: this is flat between its steps."
)

_COMPILED = "torch.compile leaves no operations to look at: run this step once without it"

UNKNOWN = Row("unknown", saved=())

ROWS: dict[str, Row] = {}


def _rows(names: str, row: Row, **more: Any) -> None:
    ROWS.update(dict.fromkeys(names.split(), row._replace(**more)))


_view = Row("view", saved=(), flat="masked", as_loss="zero-loss", bound="inputs", overflows=True)
_rows(
    "AsStrided Chunk Expand ExpandAs Flip Narrow Permute Repeat Roll Select Split SplitWithSizes Squeeze T "
    "Transpose Unbind UnsafeSplit UnsafeSplitWithSizes Unsqueeze",
    _view,
)
_rows("Flatten Reshape ReshapeAlias Unflatten UnsafeView View", _view, moves="counts")
_rows("Alias Clone Contiguous Detach ToCopy", _view, moves="nothing")
_rows("Slice", _view, moves="cuts")
_rows("Cat Stack", Row("joint", saved=(), bound="inputs"))
_rows("Add Sub Rsub IndexAdd ScatterAdd Neg", Row("sum", saved=(), bound="sum", overflows=True))
_rows("Sum", Row("sum", saved=(), bound="total", overflows=True))
_rows("Cumsum", Row("sum", saved=()))
_rows(
    "Amax Amin Max Min MaxPool2DWithIndices MaxPool3DWithIndices AvgPool2D AvgPool3D AdaptiveAvgPool2D "
    "AdaptiveAvgPool3D Mean",
    Row("reduction", bound="inputs"),
)
_rows("AdaptiveMaxPool2D Median Sort Topk", Row("reduction", saved=(), bound="inputs"))

_product = Row("product", saved=("self", "other"))
_rows("Mul", _product, bound="product", again=torch.mul, overflows=True)
_rows("Div", _product, bound="quotient", again=torch.div, pole=("other", (0.0,)), remedy=_DIVIDED)
_rows("Addcmul", Row("product", saved=("", "tensor1", "tensor2")))
_sums_up = Row("contraction", overflows=True)
_rows("Mm Bmm", _sums_up, saved=("self", "mat2"))
_rows("Addmm", _sums_up, saved=("", "mat1", "mat2"))
_rows("Baddbmm", _sums_up, saved=("", "batch1", "batch2"))
_rows("Mv", _sums_up, saved=("self", "vec"))
_rows("Addmv", _sums_up, saved=("", "mat", "vec"))
_rows("Dot", _sums_up, saved=("self", "tensor"))
_rows("Convolution", _sums_up, saved=("input", "weight", ""))
# A direction, divided by its length.
_directs = _sums_up._replace(overflows=False, pole=("result1", (0.0,)), remedy=_DIVIDED)
_rows("WeightNormInterface", _directs, saved=("v", "g"))

_norm = Row("normaliser", saved=("input", "weight", ""), bound="normalised", constant=_NORM)
_rows("NativeBatchNorm CudnnBatchNorm FusedRmsNorm", _norm)
_rows("NativeLayerNorm NativeGroupNorm", _norm, pole=("result2", (math.inf,)), remedy=_NO_EPSILON)

_saturates = Row("activation", saved=("self",), bound="one", flat="saturated-sigmoid")
_rows("Tanh", _saturates, saved=(), result="result", flat="saturated-tanh")
_rows("Sigmoid", _saturates, saved=(), result="result")
_rows("Silu Glu", _saturates, bound="inputs")
_rows("LogSigmoid", _saturates, bound="inputs", as_loss="zero-loss")
_rectifies = Row("activation", bound="inputs", flat="dead-relu")
_rows("Relu", _rectifies, saved=(), result="result", as_loss="zero-loss")
_rows("Gelu Mish LeakyRelu Elu Celu Hardswish RreluWithNoise", _rectifies)
_rows("Softplus Threshold", _rectifies, as_loss="zero-loss")
_rows("PreluKernel", _rectifies, saved=("self", "weight"))
_clamps = Row("clamp", bound="inputs", flat="clamped")
_rows("Clamp", _clamps, limits=("min", "max"), without=("max", "ClampMin"))
_rows("ClampMin", _clamps, limits=("min", None), as_loss="zero-loss")
_rows("ClampMax", _clamps, limits=(None, "max"))
_rows("Hardtanh", _clamps, limits=("min_val", "max_val"))
_rows("Hardsigmoid", _clamps, limits=(-3.0, 3.0))
_rows("Softshrink Hardshrink", _clamps)
_rows("Minimum Maximum", _clamps, family="selection", saved=("self", "other"), as_loss="zero-loss")
_shares = Row("softmax", saved=(), result="result", flat="saturated-sigmoid", constant=_ONE_CLASS)
_rows("Softmax", _shares, shares=torch.clone)
_rows("LogSoftmax", _shares, as_loss="zero-loss", shares=torch.exp)
_attends = Row("attention", saved=("query", "key", "value"), flat="saturated-sigmoid")
_rows(
    "ScaledDotProductFlashAttentionForCpu ScaledDotProductFlashAttention ScaledDotProductEfficientAttention",
    _attends,
)
_rows("MkldnnRnnLayer", Row("gates", saved=("input", "", ""), flat="saturated-sigmoid"))
_rows(
    "Round Floor Ceil Trunc Sign Sgn Heaviside Bernoulli FloorDivide",
    Row("steps", flat="constant", constant=_STEPS),
)


_at_zero = Row("distance", flat="zero-input", as_loss="zero-loss")
_rows("Abs", _at_zero, bound="inputs")
_rows("Pow", _at_zero, never_nan=True, again=torch.pow, exponent="exponent")
_rows("LinalgVectorNorm Norm Std Var", _at_zero, result="result")
_rows("Cdist Hypot", _at_zero, result="result")

_exponential = Row("function", saved=(), result="result", flat="underflow", never_nan=True)
_rows("Exp Exp2 Expm1", _exponential, pole=("result", (math.inf,)))
_rows("Sin Cos", Row("function", bound="one"))
_infinite = Row("function", pole=("self", (0.0,)))
for _name, _again in {
    "Log": torch.log, "Log2": torch.log2, "Log10": torch.log10, "Log1P": torch.log1p, "Acos": torch.acos,
    "Asin": torch.asin, "Acosh": torch.acosh, "Atanh": torch.atanh, "Erfinv": torch.erfinv, "Lgamma": torch.lgamma,
    "Digamma": torch.digamma, "Logit": torch.logit,
}.items():  # fmt: skip
    _rows(_name, _infinite, again=_again)
for _name in ("Log", "Log2", "Log10"):
    _rows(_name, ROWS[_name], remedy=_LOGARITHM)
_rows("Log1P", ROWS["Log1P"], pole=("self", (-1.0,)))
for _name in ("Acos", "Asin", "Acosh"):
    _rows(_name, ROWS[_name], pole=None, singular=("self", (-1.0, 1.0)))
for _name in ("Atanh", "Erfinv"):
    _rows(_name, ROWS[_name], pole=("self", (-1.0, 1.0)))
_rows("Cosh", Row("function", again=torch.cosh))
_rows("Sinh", Row("function", again=torch.sinh))
_root = Row("function", saved=(), result="result", singular=("result", (0.0,)))
_rows("Sqrt", _root, remedy=_ROOT)
_rows("Rsqrt Reciprocal", _root, singular=None, pole=("result", (-math.inf, math.inf)), remedy=_DIVIDED)
_rows("Atan2 Xlogy", Row("function", saved=("self", "other")))

_lets_through = Row("selection", saved=(), flat="masked", as_loss="zero-loss", bound="inputs")
_rows("Index IndexSelect MaskedSelect Gather Take Embedding EmbeddingBag", _lets_through)
_rows("MaskedFill Where", _lets_through, fills=True)
_rows("NanToNum", _lets_through)
_rows("NativeDropout", _lets_through, bound="any")
_rows(
    "AsStridedScatter ConstantPadNd Copy CopyBackwards CopySlices DiagonalScatter Fill IndexCopy IndexFill "
    "IndexPut MaskedScatter Scatter SelectScatter SliceScatter Tril Triu Zero",
    _lets_through,
    family="overwriting",
    bound="any",
)
# Flat between its steps where it takes the nearest, and everywhere outside of what it samples.
_samples = _lets_through._replace(family="steps", bound="any")
_rows("GridSampler2D GridSampler3D", _samples, saved=("input", "grid"), constant=_STEPS)

_teaches = Row("loss", saved=("self", "target"), flat="zero-loss", as_loss="zero-loss")
_rows("MseLoss", _teaches, overflows=True, bound="square")
_rows("SmoothL1Loss HuberLoss", _teaches, overflows=True)
_rows("MultiMarginLoss MultilabelMarginLoss SoftMarginLoss", _teaches)
_rows("NllLoss NllLoss2D", _teaches, saved=("self",), bound="inputs")
_rows("BinaryCrossEntropy BinaryCrossEntropyWithLogits", _teaches)
_rows("CtcLoss CudnnCtcLoss", _teaches, saved=("log_probs",), remedy=_LENGTHS)

# The slope of a slope passes on what came to it, which it does not save.
_rows("ThresholdBackward LeakyReluBackward", UNKNOWN, saved=("", "self"), bound="inputs")

_rows("CompiledFunctionBackward", UNKNOWN, reason=_COMPILED)
_rows("CudnnRnn MiopenRnn", UNKNOWN, once=True)
