"""GPUs, for the frontend: whether there are any, memory on them, and programs that run there."""

from __future__ import annotations

from kiln.runtime.cuda_blas import products_library as products_library
from kiln.runtime.cuda_driver import CudaError as CudaError
from kiln.runtime.cuda_driver import Stream as Stream
from kiln.runtime.cuda_driver import check as check
from kiln.runtime.cuda_driver import current_device as current_device
from kiln.runtime.cuda_driver import device_count as device_count
from kiln.runtime.cuda_driver import gpu as gpu
from kiln.runtime.cuda_driver import opened as opened
from kiln.runtime.cuda_driver import set_wait_mode as set_wait_mode
from kiln.runtime.cuda_driver import synchronize as synchronize
from kiln.runtime.cuda_driver import wait_mode as wait_mode
from kiln.runtime.cuda_memory import DeviceBuffer as DeviceBuffer
from kiln.runtime.cuda_memory import PinnedBuffer as PinnedBuffer
from kiln.runtime.cuda_memory import copy_on_device as copy_on_device
from kiln.runtime.cuda_memory import copy_parts_to_device as copy_parts_to_device
from kiln.runtime.cuda_memory import copy_to_device as copy_to_device
from kiln.runtime.cuda_memory import copy_to_host as copy_to_host
from kiln.runtime.cuda_memory import foreign as foreign
from kiln.runtime.cuda_memory import hand_over as hand_over
from kiln.runtime.cuda_memory import taken as taken
from kiln.runtime.cuda_program import CudaExecutable as CudaExecutable
from kiln.runtime.cuda_program import load as load
from kiln.runtime.cuda_recording import Pool as Pool
from kiln.runtime.cuda_recording import Recording as Recording
from kiln.runtime.cuda_recording import recording as recording
