"""What a model can be trained to answer: one file a task, chosen by `model.head.kind`."""
