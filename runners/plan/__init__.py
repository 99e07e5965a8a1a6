"""``Plan``, its steps, ``TrainConfig``, score names: the contract with the advisor."""
