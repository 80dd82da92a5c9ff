// Aedes, asking authsvc who connects and deciding the rest in process. Made by: authsvc config aedes
// Needs Node 20 or later and: npm install --install-links PATH/broker/aedes (brings Aedes as well)
//
// The settings of authsvc that belong to it:
//   [brokers.aedes]
//   secret_file = "/etc/authsvc/aedes.secret"

import { createServer } from 'node:net'
import { Aedes } from 'aedes'
import { attach } from 'authsvc-aedes'

const broker = await Aedes.createBroker()

// It sets all five of preConnect, authenticate, authorizePublish, authorizeSubscribe and authorizeForward: set none of
// them yourself. The secret is read from its file, which only the user of this program should be able to read.
attach(broker, {
  url: "http://127.0.0.1:8080",
  name: "aedes",
  secretFile: "/etc/authsvc/aedes.secret"
})

createServer(broker.handle).listen(1883, "127.0.0.1")
