"""An opened run: session, context, recorded models, data set, listing."""
