// Aedes@{version}, asking authsvc who connects and deciding the rest in process. Made by: @{made_by}
// Needs Node 20 or later and: npm install --install-links PATH/broker/aedes (brings Aedes as well)
//
@{settings}

import { createServer } from 'node:@{server}'
@{readers}
import { Aedes } from 'aedes'
import { attach } from 'authsvc-aedes'

const broker = await Aedes.createBroker()

// It sets all five of preConnect, authenticate, authorizePublish, authorizeSubscribe and authorizeForward: set none of
// them yourself. The secret is read from its file, which only the user of this program should be able to read.
attach(broker, {
  url: @{url},
  name: @{name},
  secretFile: @{secret_file},
@{tls}
})

createServer(@{options}broker.handle).listen(@{port}, @{host})
