//! Plugins on server stacks of other authors.
