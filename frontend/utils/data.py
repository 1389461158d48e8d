"""`kiln.data`, by the name under which PyTorch users know it."""

from kiln.data.collate import default_collate as default_collate
from kiln.data.collate import default_convert as default_convert
from kiln.data.dataset import ChainDataset as ChainDataset
from kiln.data.dataset import ConcatDataset as ConcatDataset
from kiln.data.dataset import Dataset as Dataset
from kiln.data.dataset import IterableDataset as IterableDataset
from kiln.data.dataset import StackDataset as StackDataset
from kiln.data.dataset import Subset as Subset
from kiln.data.dataset import TensorDataset as TensorDataset
from kiln.data.dataset import random_split as random_split
from kiln.data.loader import DataLoader as DataLoader
from kiln.data.sampler import BatchSampler as BatchSampler
from kiln.data.sampler import RandomSampler as RandomSampler
from kiln.data.sampler import Sampler as Sampler
from kiln.data.sampler import SequentialSampler as SequentialSampler
from kiln.data.sampler import SubsetRandomSampler as SubsetRandomSampler
from kiln.data.sampler import WeightedRandomSampler as WeightedRandomSampler
from kiln.data.worker import WorkerInfo as WorkerInfo
from kiln.data.worker import get_worker_info as get_worker_info
