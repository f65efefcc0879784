"""Validates JSON against the schemas of docs/schema: schemas.py SCHEMA_DIRECTORY, documents on standard input.

Input: a JSON array of [schema, document]. Output: a line for each document that is not valid. The published schemas accept
keys that later versions add; here every object with properties is closed, so that a key without documentation is found.
"""

import json
import os
import sys

import jsonschema


def closed(schema):
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get('properties'), dict):
        result['additionalProperties'] = False
    return result


def main():
    for name, document in json.load(sys.stdin):
        with open(os.path.join(sys.argv[1], f'{name}.json'), encoding='utf-8') as file:
            schema = json.load(file)
        jsonschema.Draft202012Validator.check_schema(schema)
        for error in jsonschema.Draft202012Validator(closed(schema)).iter_errors(document):
            where = '/'.join(str(part) for part in error.absolute_path)
            print(f'{name}: {where}: {error.message[:300]}')


main()
