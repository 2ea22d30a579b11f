"""The model: towers and what they are made of, projections into one space, fusion, views, embedding."""
