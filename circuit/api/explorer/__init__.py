"""The page on which GraphQL is explored: GraphiQL, with all that it needs served from here and from nowhere else."""
