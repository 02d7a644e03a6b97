// Asks a server with @grpc/grpc-js.
//
//   node client.js HOST:PORT FILE_DESCRIPTOR_SET
'use strict';

const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, descriptors] = process.argv.slice(2);
const definition = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(descriptors), {
  keepCase: true, longs: Number, enums: String, defaults: true,
});
const serving = grpc.loadPackageDefinition(definition).tensorflow.serving;
const GZIP = 2;

// Where protos come as descriptors, the loader makes a list of entries of a map.
const entries = (object) => Object.entries(object).map(([key, value]) => ({ key, value }));
const object = (list) => Object.fromEntries(list.map(({ key, value }) => [key, value]));

const shape = (...sizes) => ({ dim: sizes.map((size) => ({ size })) });
const floats = (values) => ({ dtype: 'DT_FLOAT', tensor_shape: shape(values.length), float_val: values });
const strings = (values) => ({
  dtype: 'DT_STRING', tensor_shape: shape(values.length), string_val: values.map((text) => Buffer.from(text)),
});
const ints = (values) => ({ dtype: 'DT_INT32', tensor_shape: shape(values.length), int_val: values });

function call(client, method, request, seconds = 60) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 1000 * seconds;
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function predict(client, spec, inputs, seconds) {
  const answer = await call(client, 'Predict', { model_spec: spec, inputs: entries(inputs) }, seconds);
  return { spec: answer.model_spec, outputs: object(answer.outputs) };
}

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return [grpc.status[error.code], error.details];
  }
}

async function search(client, words) {
  const spec = { name: 'tiny', signature_name: 'serving_default' };
  const { outputs } = await predict(client, spec, { text: strings([words]), k: ints([5]) });
  const scores = outputs.score.float_val;
  return outputs.product_id.string_val.map((id, i) => [id.toString('utf8'), scores[i]]);
}

async function signatures(client) {
  const answer = await call(client, 'GetModelMetadata', {
    model_spec: { name: 'tiny' }, metadata_field: ['signature_def'],
  });
  const { type_url: type, value } = object(answer.metadata).signature_def;
  const map = definition['tensorflow.serving.SignatureDefMap'].deserialize(value);
  return { type, names: map.signature_def.map(({ key }) => key).sort() };
}

async function main() {
  const open = (options) => new serving.PredictionService(address, grpc.credentials.createInsecure(), options);
  const client = open({});
  const packing = open({ 'grpc.default_compression_algorithm': GZIP });
  const models = new serving.ModelService(address, grpc.credentials.createInsecure());

  const half = { name: 'half', version: { value: 123 } };
  const one = await predict(client, half, { x: floats([1, 2, 5]) });
  const many = [];
  while (many.length < 48) {
    const next = [0, 1, 2, 3].map((i) => predict(client, half, { x: floats([many.length + i]) }));
    many.push(...await Promise.all(next));
  }
  const status = await call(models, 'GetModelStatus', { model_spec: { name: 'half' } });
  const waiting = { name: 'zoo', signature_name: 'wait' };
  const result = {
    one: { version: one.spec.version.value, signature: one.spec.signature_name, y: one.outputs.y.float_val },
    many: many.map(({ outputs }) => outputs.y.float_val[0]),
    packed: (await predict(packing, half, { x: floats(Array(1000).fill(4)) })).outputs.y.float_val,
    english: await search(client, 'red shirt'),
    chinese: await search(client, '蓝色杯子'),
    metadata: await signatures(client),
    status: status.model_version_status.map(({ version, state }) => [version, state]),
    absent: await failure(predict(client, { name: '没有' }, { x: floats([1]) })),
    refused: await failure(predict(client, half, {})),
    late: (await failure(predict(client, waiting, { x: floats([1]) }, 0.3)))[0],
    afterwards: (await predict(client, half, { x: floats([6]) })).outputs.y.float_val,
  };
  for (const each of [client, packing, models]) each.close();
  console.log(JSON.stringify(result));
}

main();
