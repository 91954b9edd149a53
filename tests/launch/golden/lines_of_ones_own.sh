# lines of one's own
export HF_HOME=/scratch/hf
ulimit -n 65536
