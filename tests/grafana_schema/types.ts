// The published types as JSON has them: an enum member is written as its value.
import type * as schema from '@grafana/schema';
import type * as barGauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type NumberOf<T extends number> = number extends T ? T : `${T}` extends `${infer N extends number}` ? N : never;

type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? NumberOf<T>
    : T extends readonly (infer One)[]
      ? Plain<One>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

// What one panel leaves out, the panel's own defaults fill in: only nothing unknown and no wrong type.
type Sparse<T> = T extends readonly (infer One)[]
  ? Sparse<One>[]
  : T extends object
    ? { [Key in keyof T]?: Sparse<T[Key]> }
    : T;

interface Query {
  refId: string;
  datasource: { type: string; uid: string };
  rawSql: string;
  rawQuery: boolean;
  format: string | number;
  [more: string]: unknown;
}

type Of<Type extends string, Options, Custom> = Omit<
  Plain<schema.Panel>,
  'type' | 'options' | 'targets' | 'fieldConfig'
> & {
  type: Type;
  title: string;
  description: string;
  options: Sparse<Plain<Options>>;
  targets: Query[];
  fieldConfig: Omit<Plain<schema.FieldConfigSource>, 'defaults'> & {
    defaults: Omit<Plain<schema.FieldConfig>, 'custom'> & { custom?: Sparse<Plain<Custom>> };
  };
};

type None = Record<string, never>;

export type Panel =
  | Plain<schema.RowPanel>
  | Of<'bargauge', barGauge.Options, None>
  | Of<'stat', stat.Options, None>
  // "Connect null values" of the panel's editor, left out of the published type.
  | Of<'state-timeline', timeline.Options, timeline.FieldConfig & { spanNulls?: boolean | number }>
  | Of<'table', table.Options, table.FieldConfig>
  | Of<'timeseries', timeSeries.Options, timeSeries.FieldConfig>;

type Annotation = Omit<Plain<schema.AnnotationQuery>, 'target'> & { target?: Query };

// What Grafana shows for a query variable in its list; its own dashboards have it.
type Variable = Plain<schema.VariableModel> & { definition?: string };

export type Dashboard = Omit<Plain<schema.Dashboard>, 'panels' | 'annotations' | 'templating'> & {
  panels: Panel[];
  annotations: { list: Annotation[] };
  templating: { list: Variable[] };
};
