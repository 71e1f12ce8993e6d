"""Training, fine-tuning and distillation: one loop whose objective is an argument, on
one process or under DistributedDataParallel."""
