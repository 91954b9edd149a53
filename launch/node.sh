#!/usr/bin/env bash
# Start the training of a recipe on this node. Under srun or with NNODES this
# node is one of several.
#
#   launch/node.sh RECIPE [--nproc N] [--with torchrun|accelerate]
#                  [--strategy ddp|zero1|zero2|zero3|zero3_offload|fsdp2]
#                  [--max-restarts N [--nnodes MIN:MAX]]
#                  [--runs DIR | --run-dir DIR] [--fresh] [--accept-micro-batch]
#                  [key=value ...]
#
#   --nproc      processes on this node (default: one for each GPU that
#                nvidia-smi, rocm-smi or torch finds, else 1)
#   --with       launcher (default: torchrun for ddp and fsdp2, accelerate for
#                zero*)
#   --strategy   default: ddp
#   --max-restarts  when a process or a node is lost, go on from the last
#                checkpoint, up to N times. With --nnodes also on fewer nodes,
#                down to MIN; the node of rank 0 may not be lost
#   all others   as for `cifar-lab train`
#
# one node:
#   launch/node.sh recipes/demo.yaml
# N nodes with Slurm:
#   srun --ntasks-per-node=1 launch/node.sh recipes/demo.yaml
# 2 nodes by hand, on each node with its NODE_RANK:
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 MASTER_PORT=29500 \
#     launch/node.sh recipes/demo.yaml
#
# First the nodes check that each can reach every other one
# (cifar_lab/cluster/links.py). ACCELERATE_USE_CPU=true trains on the CPUs.
#
# Exit status: 2 something must be fixed, 75 trying again may help, else that of
# the launcher.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
fail() { # printed once for all nodes, which have the same arguments
  if [ "${SLURM_PROCID:-${NODE_RANK:-0}}" = 0 ]; then
    printf 'node.sh: %s\n' "$1" >&2
    usage >&2
  fi
  exit 2
}

nproc='' with='' strategy=ddp restarts=0 nnodes='' train=() positional=()
while [ $# -gt 0 ]; do
  option=$1 value=''
  shift
  case $option in
  --help | -h) usage && exit ;;
  --nproc | --with | --strategy | --max-restarts | --nnodes | --runs | --run-dir)
    [ $# -gt 0 ] || fail "$option needs a value"
    value=$1
    shift
    ;;
  --*=*) value=${option#*=} option=${option%%=*} ;;
  esac
  case $option in
  --nproc) nproc=$value ;;
  --with) with=$value ;;
  --strategy) strategy=$value ;;
  --max-restarts) restarts=$value ;;
  --nnodes) nnodes=$value ;;
  --runs | --run-dir) train+=("$option=$value") ;; # joined: a value may begin with a dash
  --fresh | --accept-micro-batch)
    [ -z "$value" ] || fail "$option takes no value"
    train+=("$option")
    ;;
  -*) fail "unknown option $option" ;;
  *) positional+=("$option") ;;
  esac
done
[ ${#positional[@]} -gt 0 ] || fail 'RECIPE is missing'
train+=("${positional[@]}")

python=${CIFAR_LAB_PYTHON:-$root/.venv/bin/python}
[ -n "${CIFAR_LAB_PYTHON-}" ] || [ -x "$python" ] || python=python3
[ ! -d "$root/cifar_lab" ] || export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" # else it is installed

hints() { # of an accelerator that neither tool tells of
  [ -n "${CUDA_VISIBLE_DEVICES-}${HIP_VISIBLE_DEVICES-}${ROCR_VISIBLE_DEVICES-}${ZE_AFFINITY_MASK-}${SLURM_GPUS_ON_NODE-}" ] ||
    [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] || [ -e /dev/kfd ] || [ "$(uname)" = Darwin ] || command -v xpu-smi >/dev/null
}
accelerators() { # how many this node may use, or MIG; by torch, which takes 2 s to load, where no tool answers
  local found='' visible=all
  if found=$(nvidia-smi -L 2>/dev/null | grep -E '^GPU [0-9]+:|^ +MIG '); then
    visible=${CUDA_VISIBLE_DEVICES-all}
  elif found=$(rocm-smi --showid 2>/dev/null | grep -oE '^GPU\[[0-9]+\]' | sort -u); then
    visible=${HIP_VISIBLE_DEVICES-${ROCR_VISIBLE_DEVICES-${CUDA_VISIBLE_DEVICES-all}}}
  elif hints; then
    "$python" -c 'import torch; print(torch.accelerator.device_count())' 2>/dev/null || echo 0
    return
  fi
  case $found:$visible in
  :* | *: | *:-* | *:NoDevFiles) echo 0 ;; # none, or all hidden
  *' MIG '* | *:MIG-*) echo MIG ;;
  *:all) printf '%s\n' "${SLURM_GPUS_ON_NODE:-$(wc -l <<<"$found")}" ;;
  *) visible_of "$(wc -l <<<"$found")" "$visible" ;;
  esac
}
visible_of() { # how many of $1 devices the list $2 shows: those before the first that is none
  local id ids number=0
  IFS=, read -ra ids <<<"$2"
  for id in "${ids[@]}"; do
    case $id in
    '' | *[!0-9]*) [[ $id = GPU-* ]] || break ;;
    *) [ "$id" -lt "$1" ] || break ;;
    esac
    number=$((number + 1))
  done
  echo "$number"
}

number=0 device=''
[[ "${ACCELERATE_USE_CPU-}" =~ ^([Tt]rue|[Yy]es|1)$ ]] || number=$(accelerators)
case $number in
0)
  device=', on CPUs'
  [ -z "${SLURM_JOB_ID-}" ] || [ "${SLURM_PROCID:-0}" != 0 ] || [ -n "${ACCELERATE_USE_CPU-}" ] ||
    printf 'no GPU is seen here (Slurm gave %s to this node): training on CPUs; ask for one with sbatch --gpus-per-node=1\n' \
      "${SLURM_GPUS_ON_NODE:-none}"
  ;;
MIG) number=1 device=', on one MIG slice: CUDA shows one slice to a process' ;;
esac
[ -n "$nproc" ] || nproc=$number
[ "$nproc" != 0 ] || nproc=1
[[ $nproc =~ ^[1-9][0-9]*$ ]] || fail "--nproc $nproc is not a number of processes"
case $strategy in
ddp | fsdp2) with=${with:-torchrun} ;;
zero1 | zero2 | zero3 | zero3_offload) with=${with:-accelerate} ;;
*) fail "--strategy $strategy: choose ddp, zero1, zero2, zero3, zero3_offload or fsdp2" ;;
esac
case $with:$strategy in
torchrun:ddp | torchrun:fsdp2 | accelerate:*) ;;
torchrun:*) fail "--strategy $strategy needs --with accelerate: torchrun trains with ddp and fsdp2 only" ;;
*) fail "--with $with: choose torchrun or accelerate" ;;
esac
[[ $restarts =~ ^[0-9]+$ ]] || fail "--max-restarts $restarts is not a number"
[[ $nnodes =~ ^([1-9][0-9]*:[1-9][0-9]*)?$ ]] || fail "--nnodes $nnodes: give the least and the most, such as 1:4"
[ -z "$nnodes" ] || [ "$restarts" != 0 ] || fail '--nnodes needs --max-restarts: without it every node is needed'
[ "$restarts" = 0 ] || [ "$with" = torchrun ] || fail "--max-restarts needs --strategy ddp or fsdp2, by torchrun"

lines=$("$python" -m cifar_lab.cluster.links --nproc "$nproc" --with "$with" --strategy "$strategy" "${train[@]}")
declare -A at
while IFS='=' read -r key value; do at[$key]=$value; done <<<"$lines"
total=$((nproc * at[num_nodes]))
[ -n "$nnodes" ] || export CIFAR_LAB_WORLD_SIZE=$total # train refuses another
if [ -n "${at[interface]}" ]; then
  export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-${at[interface]}}" NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-${at[interface]}}"
fi
cores=$(env -u OMP_NUM_THREADS nproc)
[ "${SLURM_CPUS_ON_NODE:-$cores}" -ge "$cores" ] || cores=$SLURM_CPUS_ON_NODE
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > nproc ? cores / nproc : 1))}"

config=ddp
[ "${at[num_nodes]}" = 1 ] || config=ddp_multi_node
[ "$total" != 1 ] || config=single_gpu
[ "$strategy" = ddp ] || config=$strategy
if [ "$number" = 0 ]; then
  export CUDA_VISIBLE_DEVICES='' DS_ACCELERATOR=cpu
  unset ACCELERATE_USE_CPU # under DeepSpeed it would mean DDP
  [ "$strategy" != ddp ] || { config=cpu && export ACCELERATE_USE_CPU=true; }
fi

launcher=(torch.distributed.run --nnodes "${at[num_nodes]}" --node-rank "${at[node_rank]}" --nproc-per-node "$nproc"
  --master-addr "${at[master_addr]}" --master-port "${at[master_port]}")
if [ "$restarts" != 0 ]; then
  # Else new processes read in a store that is kept where those before them were (torch 2.14). Node 0 holds the rendezvous.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  launcher=(torch.distributed.run --nnodes "${nnodes:-${at[num_nodes]}}" --nproc-per-node "$nproc" --max-restarts "$restarts"
    --rdzv-backend c10d --rdzv-endpoint "${at[master_addr]}:${at[master_port]}" --rdzv-id "${SLURM_JOB_ID:-cifar_lab}"
    --rdzv-conf "is_host=$((at[node_rank] == 0)),last_call_timeout=5" --local-addr "${at[address]}")
fi
[ "$strategy" != fsdp2 ] || export ACCELERATE_USE_FSDP=true FSDP_VERSION=2
if [ "$with" = accelerate ]; then
  launcher=(accelerate.commands.launch --config_file "$root/accelerate_configs/$config.yaml" --num_processes "$total"
    --num_machines "${at[num_nodes]}" --machine_rank "${at[node_rank]}" --rdzv_backend static --same_network
    --main_process_ip "${at[master_addr]}" --main_process_port "${at[master_port]}")
elif [[ $(trap -p HUP) = *"''"* ]]; then # of nohup, which torchrun does not ask
  launcher+=(--signals-to-handle "SIGTERM,SIGINT,SIGQUIT")
fi
noun=$([ "$nproc" = 1 ] && echo process || echo processes)
printf 'node %s of %s (%s, %s): %s %s of %s, %s by %s, talking to %s:%s%s\n' "${at[node_rank]}" "${at[num_nodes]}" \
  "${at[host]}" "${at[interface]}" "$nproc" "$noun" "$total" "$strategy" "$with" "${at[master_addr]}" "${at[master_port]}" "$device"
trap '' USR1 # the launcher would die of it; the processes save and stop
exec "$python" -m "${launcher[@]}" -m cifar_lab.train "${train[@]}"
