"""Images, records, graphs and texts: each is one folder, and what an audit knows of it is its `MODALITY`."""
