"""Start a command as a group of processes: the command of torchrun, the script of Slurm, the task of SkyPilot."""
