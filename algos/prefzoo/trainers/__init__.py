"""Hand a bench to TRL: fit, online training, advantages, critic, reference, checkpoints, charging."""
