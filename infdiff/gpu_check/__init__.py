"""First run on a GPU: what there is, the laws, the speed, a short training, and one table at the end."""
