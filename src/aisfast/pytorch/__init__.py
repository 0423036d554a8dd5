"""The official SDK's `aistore.pytorch` as far as it fetches batches: `AISBatchIterDataset`. Needs PyTorch.

Its module has the official name, too: `aisfast.pytorch.batch_iter_dataset` for `aistore.pytorch.batch_iter_dataset`.
Any other public name or module says that it is no part of this package, and how to keep it.
"""

from aisfast.unsupported import NotHere

try:
    import torch.utils.data as _torch_data  # noqa: F401  # all of this package needs it
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("aisfast.pytorch needs PyTorch: pip install torch", name="torch") from None

from aisfast.pytorch.batch_iter_dataset import AISBatchIterDataset, EntryError

NotHere.below(__name__, "aistore.pytorch")

__all__ = ["AISBatchIterDataset", "EntryError"]
