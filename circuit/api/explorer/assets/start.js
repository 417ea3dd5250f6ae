// Shows GraphiQL for the server that this page comes from. A credential goes into its headers, as
// {"authorization": "Bearer ..."}: subscriptions send it in connection_init. It is forgotten with the page.
// A link may bring a query: /explorer?query=...&variables=...
const address = new URL('graphql', window.location.href);
const socket = new URL(address);
socket.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';

const EXAMPLE = `# Ctrl-Enter runs, Ctrl-Space completes.
# Where a credential is needed: Headers,
# {"authorization": "Bearer ..."}
query Look {
  serverStatus { version ready workers }
  workflows { id name hash }
  cases(first: 10) {
    caseId workflow status marking
  }
}

# What an agent says, as it says it.
subscription Listen($id: String!) {
  agentExecutionStream(executionId: $id) {
    cursor eventType content status error
  }
}
`;

const linked = new URLSearchParams(window.location.search);

ReactDOM.createRoot(document.getElementById('explorer')).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: address.href, subscriptionUrl: socket.href }),
    query: linked.get('query') ?? undefined,
    variables: linked.get('variables') ?? undefined,
    defaultQuery: EXAMPLE,
    defaultEditorToolsVisibility: true,
    shouldPersistHeaders: false,
  }),
);
