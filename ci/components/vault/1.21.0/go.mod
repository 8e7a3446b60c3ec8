module kleidi.invalid/vault

go 1.26.0

require github.com/hashicorp/vault v1.21.0

// Its own go.mod points into its tree and at modules that have moved. 1.21.3 and 1.21.4 do not
// build: their tree needs an sdk between the published ones.
replace (
	github.com/99designs/keyring => github.com/Jeffail/keyring v1.2.3
	github.com/hashicorp/vault/sdk => github.com/hashicorp/vault/sdk v0.20.0
	github.com/ma314smith/signedxml v1.1.1 => github.com/moov-io/signedxml v1.1.1
)
