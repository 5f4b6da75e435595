import { describe, expect, test } from '@jest/globals';
import { ChatTemplate } from '../../lib/chat/template.js';

const now = new Date(2024, 6, 4, 15, 6, 7);

function render(source: string, content = 'hi'): string {
  return new ChatTemplate(source).render({
    messages: [{ role: 'user', content }],
    bosToken: '<s>',
    eosToken: '</s>',
    now,
  });
}

const failure = (source: string) => {
  try {
    render(source);
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('no error');
};

describe('what templates get', () => {
  test.each([
    ['{{ bos_token }}{{ messages[0].role }}{{ eos_token }}', '<s>user</s>'],
    ['{% if add_generation_prompt %}yes{% endif %}', 'yes'],
    ['{% if tools is none %}no tools{% endif %}', 'no tools'],
    ['{% if unheard_of is defined %}no{% else %}yes{% endif %}', 'yes'],
    ["{{ strftime_now('%d %b %Y, %H:%M') }}", '04 Jul 2024, 15:06'],
    ["{{ strftime_now('%A %B %a %y-%m %I%p %S %% %Q') }}", 'Thursday July Thu 24-07 03PM 07 % %Q'],
    ['{% for i in range(3) %}{{ i }}{% endfor %}', '012'],
    ['{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}', '53'],
    ['{% for i in range(2, 1) %}{{ i }}{% endfor %}', ''],
    ['{% for m in messages %}\n  {% if true %}\n  x\n  {% endif %}\n{% endfor %}', '  x\n'],
    ['{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}', '2'],
    ['{{ true }} {{ True }} {{ none is none }}', 'true true true'],
  ])('%s', (source, text) => {
    expect(render(source)).toBe(text);
  });
});

describe('templates that fail', () => {
  test.each<[string, string, RegExp]>([
    ['raise', "{{ raise_exception('only aliens') }}", /cannot be rendered: only aliens/],
    ['are no Jinja', '{% if %}', /cannot be parsed/],
    ['do not end', '{{ x', /cannot be parsed/],
    ['call what is no function', '{{ messages() }}', /cannot be rendered/],
    ['have a step of 0', '{{ range(1, 5, 0) }}', /must not be zero/],
    ['count in fractions', '{{ range(1.5) }}', /takes integers/],
    ['are too long', 'x'.repeat(300_000), /longer than/],
    ['are nested too deeply', `{{ ${'('.repeat(100_000)}`, /cannot be parsed/],
  ])('those that %s', (_, source, message) => {
    expect(failure(source)).toMatchObject({
      code: 'ALTIPLANO_CHAT_TEMPLATE',
      message: expect.stringMatching(message),
    });
  });
});

describe('templates that would never end', () => {
  const doubling = (start: string, step: string) =>
    `{% set ns = namespace(x=${start}) %}{% for i in range(60) %}{% set ns.x = ${step} %}{% endfor %}`;

  test.each<[string, string]>([
    ['a giant range', '{% for i in range(1000000000) %}x{% endfor %}'],
    ['a range to infinity', '{% for i in range(0, 10**300) %}x{% endfor %}'],
    [
      'loops in loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}',
    ],
    [
      'empty loops in loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
    ],
    ['a string that doubles', doubling("'x'", 'ns.x + ns.x')],
    ['a list that doubles', doubling('[1]', 'ns.x + ns.x')],
    ['a list in itself, printed', `${doubling('[1]', '[ns.x, ns.x]')}{{ ns.x | tojson }}`],
    ['an indentation of a gigabyte', "{{ 'a\nb' | indent(1000000000) }}"],
    ['a macro that calls itself', '{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}'],
  ])('%s ends in a typed error', (_, source) => {
    const start = performance.now();
    expect(failure(source)).toMatchObject({ code: 'ALTIPLANO_CHAT_TEMPLATE' });
    expect(performance.now() - start).toBeLessThan(20_000);
  });

  test('after which the next one works', () => {
    expect(render('{{ messages[0].content }}')).toBe('hi');
  });
});
