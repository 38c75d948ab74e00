"""A stand-in for recording on a CUDA device, and contexts that refuse what a recorded step cannot do."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class CPURecorder:
    """Records every operator of a call with the tensors it read and wrote, and runs them again on the same memory.

    As with a CUDA graph, numbers of the host stay what they were, and so does what a generator is asked for. Only that
    a recorded call is computed at once: its first replay does nothing.
    """

    def __init__(self, device, generators=()):
        self.replays, self.recordings = 0, 0

    def run(self, call):
        return call()

    def record(self, call):
        self.recordings += 1
        with _Tape() as tape:
            out = call()
        computed = [True]

        def replay():
            self.replays += 1
            if computed:
                computed.pop()
            else:
                tape.replay()

        return replay, out


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        out = operator(*arguments, **(named or {}))
        returns = [value.alias_info for value in operator._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in returns):  # not a view of its input
            fresh = [] if any(returns) else tree_leaves(out)
            self.calls.append((operator, arguments, named or {}, fresh))
        return out

    @torch.no_grad()
    def replay(self):
        for operator, arguments, named, fresh in self.calls:
            out = operator(*arguments, **named)
            for old, new in zip(fresh, tree_leaves(out) if fresh else [], strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


class WaitError(AssertionError):
    pass


# What brings a value to the host, or a list of the host to the device, which waits for it as well.
_METHODS = ("item", "tolist", "numpy", "cpu", "new_tensor", "__bool__", "__int__", "__float__", "__index__")
_FUNCTIONS = {getattr(torch.Tensor, name) for name in _METHODS} | {torch.tensor, torch.as_tensor, torch.from_numpy}
# Shapes that values decide.
_OPERATORS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.repeat_interleave,
}


class _NoWaitingOperators(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        masks = operator.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
        )
        if operator.overloadpacket in _OPERATORS or masks:
            raise WaitError(f"{operator} waits for the host")
        return operator(*arguments, **(named or {}))


class _NoWaitingFunctions(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), named=None):
        if function in _FUNCTIONS:
            raise WaitError(f"{function} waits for the host")
        return function(*arguments, **(named or {}))


class NoWaiting:
    """A context in which nothing may wait for the host, forward or backward."""

    def __enter__(self):
        self.modes = [_NoWaitingFunctions(), _NoWaitingOperators()]
        for mode in self.modes:
            mode.__enter__()

    def __exit__(self, *error):
        for mode in reversed(self.modes):
            mode.__exit__(*error)
