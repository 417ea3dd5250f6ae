// The JavaScript clients of the tests: `node clients.mjs MODE`, with what it needs as JSON on standard input.
// What a client got goes to standard output as JSON, one value a line.
import { readFileSync } from 'node:fs';
import { EventSource as NodeEventSource } from 'eventsource';
import { serverAudits } from 'graphql-http';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const given = JSON.parse(readFileSync(0, 'utf-8'));
const tell = (value) => console.log(JSON.stringify(value));

// The examples call these; here they say what they were called with.
const calls = (done) => ({
  appendToResponse: (content) => tell({ appendToResponse: content }),
  showThinkingIndicator: (status) => tell({ showThinkingIndicator: status }),
  hideThinkingIndicator: () => tell({ hideThinkingIndicator: true }),
  showFinalResponse: (text) => { tell({ showFinalResponse: text }); done(); },
  showError: (error) => { tell({ showError: error }); done(); },
  handleAgentEvent: (event) => {
    tell(event);
    if (event.eventType === 'completed' || event.eventType === 'failed') done();
  },
});

// Runs an example as it stands in the docs; its address is the server's here, and the id that of an execution.
const run = (names, done) => new Function(...Object.keys(names), given.example)(...Object.values(names));

const modes = {
  async graphql() {
    const client = createClient({ url: `${given.websocket}/graphql`, webSocketImpl: WebSocket });
    for await (const result of client.iterate({ query: given.query, variables: given.variables })) tell(result);
    await client.dispose();
  },

  websocket() {
    return new Promise((done) => {
      let socket;
      class Here extends WebSocket {
        constructor(url) {
          super(url.replace('ws://localhost:4000', given.websocket).replace('abc-123', given.execution));
          socket = this;
        }
      }
      run({ WebSocket: Here, ...calls(() => { socket.close(); done(); }) });
    });
  },

  eventsource() {
    return new Promise((done) => {
      let source;
      class Here extends NodeEventSource {
        constructor(url) {
          super(given.http + url.replace('abc-123', given.execution));
          source = this;
        }
      }
      run({ EventSource: Here, ...calls(() => { source.close(); done(); }) });
    });
  },

  async audits() {
    for (const audit of serverAudits({ url: `${given.http}/graphql`, fetchFn: fetch })) {
      const { status, reason } = await audit.fn();
      tell({ id: audit.id, name: audit.name, status, reason });
    }
  },
};

await modes[process.argv[2]]();
process.exit(0);
