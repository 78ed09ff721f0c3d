"""One file per model, whole: config, module, batches, loss, scoring."""
