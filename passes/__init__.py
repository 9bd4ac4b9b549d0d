"""Graph rewrites: one per file, each exact. `pipelines` lists their order; `manager` runs them."""
