"""The metrics of a run in a tracker of the user's choice: MLflow, Weights & Biases, TensorBoard or Trackio."""
