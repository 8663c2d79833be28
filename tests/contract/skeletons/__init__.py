"""Methods to copy: one attack of each shape and a defense, complete; every contract runs on them as well."""
