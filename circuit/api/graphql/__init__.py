"""GraphQL at `/graphql`: queries and mutations over HTTP, subscriptions over `graphql-transport-ws`."""
